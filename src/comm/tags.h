/* Every kind of message between ranks. All travel on the world's mail communicator but TAG_SLICE and TAG_WHOLE, which
 * go among the learners, and TAG_PING, TAG_LOAD and TAG_WEIGHTS, which two ranks exchange on the team's. */
#ifndef FAVOR_COMM_TAGS_H
#define FAVOR_COMM_TAGS_H

enum tag {
	TAG_BEAT = 1, /* struct beat: any rank -> leader, what it does; leader -> any rank, whether somebody works */
	TAG_PULL,     /* struct work_request: rollout -> leader */
	TAG_WORK,     /* struct work_answer: leader -> rollout */
	TAG_SAMPLED,  /* a packed group: rollout -> reward */
	TAG_SCORED,   /* a packed group: reward -> learner */
	TAG_BYE,      /* empty: any rank -> leader, it sends nothing more; leader -> any rank, all have said so */
	TAG_STOP,     /* struct stop_notice: any rank -> leader, a signal came; leader -> any rank, the run stops */
	TAG_SLICE,    /* floats: a learner's part of the sum -> the learner that owns the slice */
	TAG_WHOLE,    /* floats: a learner's slice -> all other learners, or -> the leader alone */
	TAG_PING,     /* struct ping: there and back */
	TAG_LOAD,     /* bytes that are only timed */
	/* where ranks may be lost */
	TAG_LOSS,     /* struct loss_notice: leader -> any rank, that one is lost */
	TAG_DONE,     /* struct done_notice: learner -> leader, a scored group has come */
	TAG_OVER,     /* struct over_notice: leader -> reward, all groups of the round have come */
	TAG_GIFT,     /* number of the call, bytes: any rank -> leader, its part of a collective call */
	TAG_TOLD,     /* number of the call, bytes: leader -> any rank, what comes of it */
	TAG_WEIGHTS,  /* floats: leader -> rollout */
	TAG_END,      /* struct end_notice: any rank -> any rank, the job is over */
};

#endif
