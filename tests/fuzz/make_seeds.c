/* make_seeds FOLDER: the binary seeds that no golden file has, to the folders checkpoint, group and mail in it. */
#include "base/group.h"
#include "comm/internal.h"

#include "../checkpoint/sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void make_folder(const char *parent, const char *name)
{
	char *path = favor_format("%s/%s", parent, name);
	mkdir(path, 0777);
	free(path);
}

static void write_seed(const char *folder, const char *target, const char *name, const void *data, size_t n)
{
	char *path = favor_format("%s/%s/%s", folder, target, name);
	sample_write(path, data, n);
	free(path);
}

/* A small group; scored or not. */
static void pack(uint64_t index, int scored, void **data, size_t *n)
{
	struct group *g = group_new(2, 5);
	g->index = index;
	g->step = 3;
	g->record = 1;
	g->temperature = 1;
	g->prompt_tokens = 9;
	g->rollout_rank = 2;
	g->start[1] = 3;
	g->start[2] = 5;
	for (int i = 0; i < 5; i++) {
		g->token_ids[i] = 100 + i;
		g->logp[i] = g->sampling_logp[i] = -0.5f * (float)i;
	}
	g->finish[1] = FINISH_LENGTH;
	g->text[0] = favor_strdup("<think>a</think><answer>running</answer>");
	g->text[1] = scored ? favor_strdup("") : NULL;
	if (scored) {
		group_set_rewards(g, 2);
		g->reward[0] = 1.5f;
		g->answered[0] = 1;
		g->answer[0] = favor_strdup("running");
		g->answer[1] = favor_strdup("");
	}
	group_pack(g, data, n);
	group_destroy(g);
}

static void groups(const char *folder)
{
	for (int scored = 0; scored < 2; scored++) {
		void *data;
		size_t n;
		pack(7, scored, &data, &n);
		write_seed(folder, "group", scored ? "scored" : "sampled", data, n);
		free(data);
	}
}

struct mail {
	unsigned char data[4096];
	size_t n;
};

static void put(struct mail *m, int source, enum tag tag, const void *data, size_t n)
{
	const unsigned char head[4] = {(unsigned char)source, (unsigned char)tag, (unsigned char)n,
	                               (unsigned char)(n >> 8)};
	memcpy(m->data + m->n, head, 4);
	if (n)
		memcpy(m->data + m->n + 4, data, n);
	m->n += 4 + n;
}

static void mails(const char *folder)
{
	const struct beat beat = {.phase = "rollout", .step = 3, .sample = 8, .works = 1};
	const struct work_request request = {.step = 3}, later = {.step = 4};
	const struct work_answer answer = {.step = 3, .index = 100, .left = 1};
	void *data;
	size_t n;
	struct mail leader = {.data = {0, 2}, .n = 2};
	put(&leader, 1, TAG_BEAT, &beat, sizeof beat);
	put(&leader, 2, TAG_PULL, &request, sizeof request);
	put(&leader, 3, TAG_PULL, &later, sizeof later);
	pack(100, 1, &data, &n);
	put(&leader, 1, TAG_SCORED, data, n);
	free(data);
	put(&leader, 2, TAG_BYE, NULL, 0);
	write_seed(folder, "mail", "leader", leader.data, leader.n);
	struct mail reward = {.data = {1, 0}, .n = 2};
	pack(101, 0, &data, &n);
	put(&reward, 3, TAG_SAMPLED, data, n);
	free(data);
	put(&reward, 0, TAG_BEAT, &beat, sizeof beat);
	put(&reward, 0, TAG_BYE, NULL, 0);
	write_seed(folder, "mail", "reward", reward.data, reward.n);
	struct mail rollout = {.data = {2, 4}, .n = 2};
	put(&rollout, 0, TAG_WORK, &answer, sizeof answer);
	write_seed(folder, "mail", "rollout", rollout.data, rollout.n);
	struct mail colocate = {.data = {1, 1}, .n = 2};
	pack(101, 1, &data, &n);
	put(&colocate, 3, TAG_SCORED, data, n);
	free(data);
	write_seed(folder, "mail", "colocate", colocate.data, colocate.n);
}

/* The same where ranks may be lost: the number of the round stands behind a group. */
static void mails_of_survivors(const char *folder)
{
	const struct work_request request = {.step = 3};
	const struct loss_notice loss = {.rank = 1}, own = {.rank = 2, .frozen = 1};
	const struct over_notice over = {.round = 3};
	const struct done_notice done = {.round = 3, .index = 100};
	const int64_t part[2] = {0, 1};
	unsigned char group[2048];
	const int64_t round = 3;
	for (int scored = 0; scored < 2; scored++) {
		void *data;
		size_t n;
		pack(100, scored, &data, &n);
		memcpy(group, data, n);
		memcpy(group + n, &round, sizeof round);
		free(data);
		struct mail m = {.data = {scored ? 0 : 1, 8 + 2}, .n = 2};
		put(&m, 2, TAG_PULL, &request, sizeof request);
		put(&m, scored ? 1 : 3, scored ? TAG_SCORED : TAG_SAMPLED, group, n + sizeof round);
		put(&m, scored ? 1 : 3, scored ? TAG_SCORED : TAG_SAMPLED, group, n + sizeof round);
		if (scored) {
			put(&m, 3, TAG_GIFT, part, sizeof part);
		} else {
			memmove(m.data + 2, m.data + 6 + sizeof request, m.n - 6 - sizeof request);
			m.n -= 4 + sizeof request;
			put(&m, 0, TAG_OVER, &over, sizeof over);
		}
		write_seed(folder, "mail", scored ? "leader-survives" : "reward-survives", m.data, m.n);
	}
	struct mail rollout = {.data = {2, 8 + 4}, .n = 2};
	put(&rollout, 0, TAG_LOSS, &loss, sizeof loss);
	put(&rollout, 0, TAG_TOLD, part, sizeof part);
	put(&rollout, 0, TAG_LOSS, &own, sizeof own);
	write_seed(folder, "mail", "rollout-survives", rollout.data, rollout.n);
	struct mail done_twice = {.data = {0, 8 + 2}, .n = 2};
	put(&done_twice, 0, TAG_DONE, &done, sizeof done);
	put(&done_twice, 0, TAG_DONE, &done, sizeof done);
	write_seed(folder, "mail", "done-survives", done_twice.data, done_twice.n);
}

/* Small, so that mutations meet what matters: one tensor with moments, one without, a file, a metric, a sample. */
static void checkpoints(const char *folder)
{
	struct favor_error e = {""};
	float values[6] = {1, 2, 3, 4, 5, 6};
	double history[2] = {0.5, 1};
	char config[] = "method: grpo\n", ranks[] = "rollout 1", sample[] = "{\"step\": 1}", file[] = "{}";
	char name_a[] = "a", name_b[] = "b", name_file[] = "config.json", name_metric[] = "rewards/a/mean";
	char *samples[] = {sample};
	struct checkpoint_tensor tensors[] = {
	    {.name = name_a, .ndim = 2, .shape = {2, 3}, .values = values, .exp_avg = values, .exp_avg_sq = values},
	    {.name = name_b, .ndim = 1, .shape = {2}, .values = values}};
	struct checkpoint_file files[] = {{name_file, file, 2}};
	struct checkpoint_column columns[] = {{name_metric, history}};
	struct checkpoint c = {.step = 1,
	                       .seed = 2,
	                       .cursor = 3,
	                       .config = config,
	                       .ranks = ranks,
	                       .tensor_count = 2,
	                       .tensors = tensors,
	                       .file_count = 1,
	                       .files = files,
	                       .history_rows = 2,
	                       .history_columns = 1,
	                       .history = columns,
	                       .sample_count = 1,
	                       .samples = samples};
	char *path = favor_format("%s/checkpoint/small.h5", folder);
	if (checkpoint_write(path, &c, &e))
		favor_die("%s", e.message);
	free(path);
	sample_make(&c, 12);
	path = favor_format("%s/checkpoint/all.h5", folder);
	if (checkpoint_write(path, &c, &e))
		favor_die("%s", e.message);
	free(path);
	sample_free(&c);
}

int main(int argc, char **argv)
{
	static const char *const targets[] = {"checkpoint", "group", "mail"};
	if (argc != 2)
		return 2;
	for (int i = 0; i < 3; i++)
		make_folder(argv[1], targets[i]);
	checkpoints(argv[1]);
	groups(argv[1]);
	mails(argv[1]);
	mails_of_survivors(argv[1]);
	return 0;
}
