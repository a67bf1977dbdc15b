/* The learning rate of every step. */
#include "learner/schedule.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct learner_options options(enum schedule_type type, int32_t steps, int32_t warmup)
{
	struct learner_options o = {0};
	o.steps = steps;
	o.warmup = warmup;
	o.schedule = type;
	o.lr = 1e-3f;
	o.lr_end = 1e-4f;
	return o;
}

static void check(const struct learner_options *o, int64_t step, double want)
{
	double got = schedule_lr(o, step);
	if (fabs(got - want) > 1e-9)
		fail_msg("step %lld: %.9g instead of %.9g", (long long)step, got, want);
}

static void test_values(void **state)
{
	(void)state;
	for (int type = SCHEDULE_CONSTANT; type <= SCHEDULE_COSINE; type++) { /* warm-up is the same for all */
		struct learner_options o = options((enum schedule_type)type, 14, 4);
		check(&o, 0, 0.25e-3);
		check(&o, 1, 0.5e-3);
		check(&o, 3, 1e-3);
		check(&o, 4, 1e-3);
	}
	struct learner_options o = options(SCHEDULE_CONSTANT, 14, 4);
	check(&o, 13, 1e-3);
	check(&o, 99, 1e-3);

	o = options(SCHEDULE_LINEAR, 14, 4);
	check(&o, 9, 0.55e-3);
	check(&o, 13, 1e-4 + 0.9e-3 * 0.1);
	check(&o, 14, 1e-4);
	check(&o, 99, 1e-4); /* a run that was prolonged stays at the end's rate */

	o = options(SCHEDULE_COSINE, 14, 4);
	check(&o, 9, 0.55e-3);
	check(&o, 5, 1e-4 + 0.9e-3 * 0.5 * (1 + cos(M_PI * 0.1)));
	check(&o, 14, 1e-4);
}

static void test_edges(void **state)
{
	(void)state;
	struct learner_options o = options(SCHEDULE_LINEAR, 10, 0);
	check(&o, 0, 1e-3);
	o = options(SCHEDULE_COSINE, 3, 5); /* warm-up longer than the run */
	check(&o, 2, 0.6e-3);
	o = options(SCHEDULE_COSINE, 5, 5);
	check(&o, 4, 1e-3);
	check(&o, 5, 1e-4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_edges)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
