/* Group-relative advantages. Called by the learner's step once for each group it owns; owns nothing.
 * Sums are in double, so that a group of equal rewards has a standard deviation of exactly 0 and advantages of exactly
 * 0: otherwise rounding noise would be divided by eps. */
#include "learner/advantage.h"

#include <math.h>

float advantage_group(const float *reward, int n, enum scale_rewards scale, float *advantage)
{
	double mean = 0, square = 0;
	for (int i = 0; i < n; i++)
		mean += reward[i];
	mean /= n;
	for (int i = 0; i < n; i++)
		square += (reward[i] - mean) * (reward[i] - mean);
	/* Bessel's correction; one response alone has no spread, and TRL calls its std 0 */
	double std = n > 1 ? sqrt(square / (n - 1)) : 0;

	/* A_i = (r_i - mean) / (std + eps) */
	double divisor = scale == SCALE_GROUP ? std + (double)ADVANTAGE_EPS : 1;
	for (int i = 0; i < n; i++)
		advantage[i] = (float)((reward[i] - mean) / divisor);
	return (float)std;
}
