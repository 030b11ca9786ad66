/* SPDX-License-Identifier: Apache-2.0 */
#include "why.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "show.h"
#include "text.h"

/* Where one thing ends and the next begins. All are shares but where said. */
#define STALL_LITTLE 0.02 /* threads: what nobody notices */
#define CPU_FULL 0.75	  /* cores: a thread that can hardly do more */
#define CPU_WAITS 0.1	  /* it would, if others left it a core */
#define BUSY_FULL 0.8	  /* a store that has always something to do */
#define PINNED_MUCH 0.25  /* of the budget */
#define SLOWER 3.0	  /* times the median of the other stores */
#define NEAR_LITTLE 0.6	  /* of the touches: those of a sweep are near one another */
#define AHEAD_NONE 0.1	  /* of the fetched blocks: less are not fetched ahead at all */
#define BLOCKS_FEW 32	  /* of a budget: less leaves no room to read ahead */
#define WASTED_MUCH 0.3	  /* of what was fetched ahead */
#define STARVED_MUCH 0.3  /* of the faults that wait */
#define WRITES_MUCH 0.5	  /* of what is fetched */
#define FEW 8		  /* blocks or reads: too few to judge by */
#define SILENT_NS 1000000000ull
#define BLOCK (2.0 * 1024 * 1024)

struct numbers {
	double demand, standby, wprot, zero, starved, touches, near, fetched, written, issued,
	    useful, wasted;
	double blocks; /* fetched */
	double reads;  /* per store, below */
	double busy;   /* of the busiest store */
	unsigned busiest;
};

struct store_numbers {
	double reads, bytes, written, busy_s, mean_s, floor_s;
};

const char *why_name(enum why_cause cause)
{
	static const char *const names[] = {
		[WHY_NOTHING] = "nothing",
		[WHY_UNMANAGED] = "unmanaged",
		[WHY_STORE_DOWN] = "store-down",
		[WHY_STORE_FULL] = "store-full",
		[WHY_PINNED] = "pinned",
		[WHY_MOVERS] = "movers",
		[WHY_SLOW_STORE] = "slow-store",
		[WHY_RANDOM] = "random",
		[WHY_BUDGET] = "budget",
		[WHY_WRITE_BACK] = "write-back",
		[WHY_LINK] = "link",
		[WHY_FIRST_TOUCH] = "first-touch",
		[WHY_READ_AHEAD] = "read-ahead",
	};

	return names[cause];
}

static double since(uint64_t now, uint64_t before)
{
	return (double)(now >= before ? now - before : now);
}

__attribute__((format(printf, 2, 3))) static void evidence(struct why *w, const char *format, ...)
{
	va_list ap;

	if (w->nevidence == WHY_LINES)
		return;
	va_start(ap, format);
	vsnprintf(w->evidence[w->nevidence++], sizeof(w->evidence[0]), format, ap);
	va_end(ap);
}

__attribute__((format(printf, 2, 3))) static void advise(struct why *w, const char *format, ...)
{
	va_list ap;

	if (w->nadvice == WHY_LINES)
		return;
	va_start(ap, format);
	vsnprintf(w->advice[w->nadvice++], sizeof(w->advice[0]), format, ap);
	va_end(ap);
}

static void set(struct why *w, enum why_cause cause, const char *headline)
{
	w->cause = cause;
	snprintf(w->headline, sizeof(w->headline), "%s", headline);
}

/* "12.3M/s" of bytes. */
static const char *speed(double bytes, char *out)
{
	char text[TEXT_NUMBER];

	snprintf(out, TEXT_NUMBER, "%.20s/s", text_size((uint64_t)bytes, text));
	return out;
}

static const char *size(double bytes, char *out)
{
	return text_size((uint64_t)bytes, out);
}

static const char *uri(const struct why_input *in, unsigned i)
{
	static char text[EMF_STATS_STORES][sizeof(in->now->store[0].uri)];

	return text_printable(in->now->store[i].uri, text[i], sizeof(text[i]));
}

static double mean_of(const struct emf_hist *h)
{
	double sum = 0, n = 0;

	for (unsigned i = 0; i < EMF_STATS_BUCKETS; i++) {
		sum += (double)h->bucket[i] * (double)emf_hist_floor(i) * 1.06; /* its middle */
		n += (double)h->bucket[i];
	}
	return n > 0 ? sum / n / 1e9 : 0;
}

static void measure_store(const struct why_input *in, unsigned i, struct store_numbers *out)
{
	const struct emf_store_stats *s = &in->now->store[i], *b = &in->before->store[i];
	struct emf_hist h;

	hist_since(&s->read_latency, &b->read_latency, &h);
	out->reads = (double)hist_total(&h);
	out->mean_s = mean_of(&h);
	out->floor_s = (double)hist_quantile(&s->read_latency, 0.01) / 1e9;
	out->bytes = since(s->read_bytes, b->read_bytes);
	out->written = since(s->written_bytes, b->written_bytes);
	/* what is under way counts from the beginning of the interval at most */
	uint64_t busy = s->busy_ns;
	if (s->inflight && in->now_ns > s->busy_since)
		busy += in->now_ns - s->busy_since;
	uint64_t was = b->busy_ns;
	uint64_t then = in->now_ns - (uint64_t)(in->seconds * 1e9);
	if (b->inflight && then > b->busy_since)
		was += then - b->busy_since;
	out->busy_s = busy > was ? (double)(busy - was) / 1e9 : 0;
	if (out->busy_s > in->seconds)
		out->busy_s = in->seconds;
}

static void measure(const struct why_input *in, struct numbers *n, struct store_numbers *st,
		    struct why *w)
{
	const struct emf_stats *s = in->now, *b = in->before;

	*n = (struct numbers){
		.demand = since(s->faults_demand, b->faults_demand),
		.standby = since(s->faults_standby, b->faults_standby),
		.wprot = since(s->faults_write_protect, b->faults_write_protect),
		.zero = since(s->faults_zero, b->faults_zero),
		.starved = since(s->faults_starved, b->faults_starved),
		.touches = since(s->touches, b->touches),
		.near = since(s->touches_near, b->touches_near),
		.fetched = since(s->fetched_bytes, b->fetched_bytes),
		.written = since(s->written_bytes, b->written_bytes),
		.issued = since(s->prefetch_issued, b->prefetch_issued),
		.useful = since(s->prefetch_useful, b->prefetch_useful),
		.wasted = since(s->prefetch_wasted, b->prefetch_wasted),
	};
	n->blocks = n->fetched / BLOCK;
	w->stall = since(s->stall_ns, b->stall_ns) / 1e9 / in->seconds;
	for (unsigned i = 0; i < s->nstores; i++) {
		measure_store(in, i, &st[i]);
		if (st[i].busy_s / in->seconds > n->busy) {
			n->busy = st[i].busy_s / in->seconds;
			n->busiest = i;
		}
		if (st[i].busy_s > 0)
			w->bandwidth += st[i].bytes / st[i].busy_s;
		n->reads += st[i].reads;
	}
	if (w->bandwidth > 0)
		w->pass = (double)s->far_bytes / w->bandwidth;
}

/* The wait that no counter has yet: an answer that does not come. */
static bool silent_store(const struct why_input *in, const struct store_numbers *st, struct why *w)
{
	for (unsigned i = 0; i < in->now->nstores; i++) {
		const struct emf_store_stats *s = &in->now->store[i];

		if (!s->inflight || st[i].bytes + st[i].written > 0 ||
		    in->now_ns < s->busy_since + SILENT_NS)
			continue;
		set(w, WHY_SLOW_STORE, "a store that does not answer");
		evidence(w, "%s has not answered for %.1f s (%u transfers wait)", uri(in, i),
			 (double)(in->now_ns - s->busy_since) / 1e9, (unsigned)s->inflight);
		advise(w, "look at that server and the way to it; after store.timeout what waits "
			  "is lost (SIGBUS)");
		return true;
	}
	return false;
}

static bool broken_store(const struct why_input *in, struct why *w)
{
	for (unsigned i = 0; i < in->now->nstores; i++) {
		if (in->now->store[i].state == EMF_STORE_DOWN) {
			char lost[TEXT_NUMBER];

			set(w, WHY_STORE_DOWN, "a store is down");
			evidence(w, "%s is down, after %llu errors; %s were lost", uri(in, i),
				 (unsigned long long)in->now->store[i].errors,
				 size((double)in->now->lost_bytes, lost));
			if (in->now->lost_bytes)
				advise(w, "bring it back and restart the program: what was lost is "
					  "gone");
			else
				advise(w, "bring it back; nothing is lost by now (%s)",
				       "store.redundancy=mirror or parity keeps it so");
			return true;
		}
	}
	for (unsigned i = 0; i < in->now->nstores; i++) {
		if (in->now->store[i].state == EMF_STORE_FULL) {
			char used[TEXT_NUMBER];

			set(w, WHY_STORE_FULL, "the far store is full");
			evidence(w,
				 "%s takes no more (%s used): what is over stays local, beyond "
				 "the budget",
				 uri(in, i), size((double)in->now->store[i].used_bytes, used));
			advise(w, "give it more space, or add a store: --store URI");
			return true;
		}
	}
	return false;
}

static bool pinned(const struct why_input *in, struct why *w)
{
	char stuck[TEXT_NUMBER], limit[TEXT_NUMBER], kept[TEXT_NUMBER];
	double budget = (double)in->now->local_limit;

	if (!budget || (double)in->now->stuck_bytes < PINNED_MUCH * budget)
		return false;
	set(w, WHY_PINNED, "pinned memory");
	evidence(w,
		 "%s of the budget of %s cannot be moved: the kernel refuses (pinned for a "
		 "device, or shared with a child)",
		 size((double)in->now->stuck_bytes, stuck), size(budget, limit));
	if (!in->now->move)
		evidence(w, "without UFFDIO_MOVE nothing leaves while the program reads with "
			    "O_DIRECT by AIO or io_uring");
	if (in->kept_bytes)
		evidence(w, "%s more are locked, secret or registered for DMA",
			 size((double)in->kept_bytes, kept));
	advise(w, "let the program pin less (mlock, io_uring buffers, RDMA), end children that "
		  "share its memory");
	advise(w, "or raise local.limit by as much");
	return true;
}

/*
 * Of the time that it is ready and others run, at most so much held anybody up as threads waited:
 * after a fault it has nothing to do that is urgent, and the thread that goes on may go before it.
 */
static bool has_no_time(const struct why_thread *t, double stall)
{
	double late = t->waited < stall ? t->waited : stall;

	return t->ran >= 0 && t->ran + late >= CPU_FULL;
}

static bool movers(const struct why_input *in, const struct numbers *n, struct why *w)
{
	bool mover = has_no_time(&in->mover, w->stall);
	const struct why_thread *t = mover ? &in->mover : &in->fault;
	char fetch[TEXT_NUMBER], write[TEXT_NUMBER];

	if (!has_no_time(t, w->stall))
		return false;
	set(w, WHY_MOVERS,
	    mover ? "the mover thread has no time left" : "the fault thread has no time left");
	evidence(w, "thread %s uses %.0f%% of a core, at %s fetched and %s written",
		 mover ? "emf-mover" : "emf-fault", 100 * t->ran,
		 speed(n->fetched / in->seconds, fetch), speed(n->written / in->seconds, write));
	if (t->waited >= CPU_WAITS)
		evidence(w, "and waits for one %.0f%% of the time: others use them",
			 100 * t->waited);
	if (in->now->move || t->waited >= CPU_WAITS)
		advise(w, "leave a core free for it: fewer compute threads, or another cpuset");
	else
		advise(w, "pages are copied here, not moved: Linux 6.8 and engine.move=auto make "
			  "that cheap");
	advise(w, "or raise local.limit, so that less has to move");
	return true;
}

/* Of `n` values, without that of `but`. */
static double median_but(const struct store_numbers *st, unsigned n, unsigned but)
{
	double v[EMF_STATS_STORES];
	unsigned k = 0;

	for (unsigned i = 0; i < n; i++) {
		unsigned at = k;

		if (i == but || st[i].reads < FEW)
			continue;
		for (; at && v[at - 1] > st[i].mean_s; at--)
			v[at] = v[at - 1];
		v[at] = st[i].mean_s;
		k++;
	}
	return k ? v[k / 2] : 0;
}

static bool slow_store(const struct why_input *in, const struct store_numbers *st, struct why *w)
{
	for (unsigned i = 0; i < in->now->nstores; i++) {
		double others = median_but(st, in->now->nstores, i);
		char mine[TEXT_NUMBER], theirs[TEXT_NUMBER];

		if (st[i].reads < FEW || !(others > 0) || st[i].mean_s < SLOWER * others)
			continue;
		set(w, WHY_SLOW_STORE, "one store is slower than the others");
		evidence(w,
			 "a read of %s takes %s, of the others %s; a stripe is as fast as its "
			 "slowest member",
			 uri(in, i), text_time((uint64_t)(st[i].mean_s * 1e9), mine),
			 text_time((uint64_t)(others * 1e9), theirs));
		advise(w, "mend it or leave it out: without %s the others carry the load",
		       uri(in, i));
		return true;
	}
	return false;
}

/*
 * More in flight gives more, and each takes as long as one alone: not the width of the link is
 * used up, each answer is late.
 */
static bool late_answers(const struct why_input *in, const struct numbers *n,
			 const struct store_numbers *st, struct why *w)
{
	const struct store_numbers *s = &st[n->busiest];
	double inflight = s->reads * s->mean_s / in->seconds;
	double alone, together;
	char each[TEXT_NUMBER], b[TEXT_NUMBER];

	if (n->busy < BUSY_FULL || s->reads < FEW || !(s->floor_s > 0) || inflight < 1.4)
		return false;
	alone = s->bytes / s->reads / s->floor_s;
	together = s->bytes / s->busy_s;
	if (s->mean_s > 1.5 * s->floor_s || together < 1.4 * alone)
		return false;
	set(w, WHY_SLOW_STORE, "the store answers late");
	evidence(w,
		 "a read of %s takes %s, alone or with others (%.1f at a time give %s): latency, "
		 "not bandwidth",
		 uri(in, n->busiest), text_time((uint64_t)(s->mean_s * 1e9), each), inflight,
		 speed(together, b));
	advise(w, "a nearer or faster store; a deeper window ([class] window=N) has more reads "
		  "under way at once");
	return true;
}

static bool random_access(const struct why_input *in, const struct numbers *n, struct why *w)
{
	char each[TEXT_NUMBER], brought[TEXT_NUMBER];
	struct emf_hist h;

	if (n->demand < FEW || n->touches < FEW || n->near >= NEAR_LITTLE * n->touches)
		return false;
	hist_since(&in->now->fault_latency, &in->before->fault_latency, &h);
	set(w, WHY_RANDOM, "random access");
	evidence(w,
		 "%.0f far blocks a second are touched, only %.0f%% of them near one of the last "
		 "four: nothing to foresee",
		 n->touches / in->seconds, 100 * n->near / n->touches);
	evidence(
	    w, "each brings %s for the few bytes that are read; half of the faults take %s or more",
	    size(n->fetched / n->demand, brought), text_time(hist_quantile(&h, 0.5), each));
	advise(w, "give the part that is walked at random local memory: raise local.limit, or a "
		  "class for it with resident=100");
	advise(w, "small objects (engine.heap=all): keep the index in memory, the values far");
	return true;
}

static void budget_advice(const struct why_input *in, struct why *w)
{
	char far[TEXT_NUMBER], limit[TEXT_NUMBER];
	const struct emf_stats *s = in->now;

	advise(w, "raise local.limit from %s; with %s more nothing would be far",
	       size((double)s->local_limit, limit), size((double)s->far_bytes, far));
}

static bool wasteful(const struct numbers *n)
{
	return n->issued >= FEW && n->wasted >= WASTED_MUCH * n->issued;
}

/* Where next to nothing is fetched ahead, reads come one by one, whatever the link could do. */
static bool cramped(const struct why_input *in, const struct numbers *n)
{
	return n->blocks >= FEW && n->issued < AHEAD_NONE * n->blocks &&
	       (double)in->now->local_limit < BLOCKS_FEW * BLOCK;
}

static bool too_small(const struct why_input *in, const struct numbers *n, struct why *w)
{
	char limit[TEXT_NUMBER];
	bool starved = n->starved >= FEW && n->starved >= STARVED_MUCH * (n->demand + n->zero);

	if (!wasteful(n) && !starved && !cramped(in, n))
		return false;
	set(w, WHY_BUDGET, "too small a budget for what the program goes through");
	if (wasteful(n))
		evidence(w,
			 "%.0f%% of the blocks that are fetched ahead are given up before they "
			 "are touched",
			 100 * n->wasted / n->issued);
	if (starved)
		evidence(w, "%.0f faults a second found no frame, and waited for one to be freed",
			 n->starved / in->seconds);
	if (cramped(in, n))
		evidence(w,
			 "there is no room to fetch anything ahead: %.0f blocks a second are "
			 "waited for",
			 n->demand / in->seconds);
	evidence(w, "the budget is %s, %.0f blocks", size((double)in->now->local_limit, limit),
		 (double)in->now->local_limit / BLOCK);
	budget_advice(in, w);
	return true;
}

static bool full_link(const struct why_input *in, const struct numbers *n,
		      const struct store_numbers *st, struct why *w)
{
	char b[TEXT_NUMBER], f[TEXT_NUMBER], wr[TEXT_NUMBER];
	const struct store_numbers *s = &st[n->busiest];
	bool writes = n->written >= WRITES_MUCH * n->fetched;

	if (n->busy < BUSY_FULL)
		return false;
	if (writes)
		set(w, WHY_WRITE_BACK, "write-back takes the link");
	else
		set(w, WHY_LINK, "the bandwidth of the link");
	evidence(w, "%s is busy %.0f%% of the time, with %s in both directions",
		 uri(in, n->busiest), 100 * n->busy, speed((s->bytes + s->written) / s->busy_s, b));
	evidence(w, "fetched %s, written %s", speed(n->fetched / in->seconds, f),
		 speed(n->written / in->seconds, wr));
	if (writes) {
		advise(w, "the program changes what it fetches; what is only read is never written "
			  "back. llama.cpp: turn flash attention on (-fa), it dirties far less");
	}
	if (in->now->nstores < 2)
		advise(w, "stripe over a second store: one more --store URI doubles the bandwidth");
	else
		advise(w, "one more store to the %u", (unsigned)in->now->nstores);
	budget_advice(in, w);
	return true;
}

static void rest(const struct why_input *in, const struct numbers *n, struct why *w)
{
	double all = n->demand + n->standby + n->wprot + n->zero;

	if (n->zero > all / 2 && n->demand < n->zero / 4) {
		set(w, WHY_FIRST_TOUCH, "first touches: the program fills new memory");
		evidence(w, "%.0f%% of the faults are first touches", 100 * n->zero / all);
		advise(w, "that ends with the filling; nothing to change");
		return;
	}
	set(w, WHY_READ_AHEAD, "blocks are asked for too late");
	evidence(w, "%.0f faults a second wait for a store that is busy only %.0f%% of the time",
		 n->demand / in->seconds, 100 * n->busy);
	evidence(w, "%.0f blocks a second are fetched ahead, %.0f of them touched",
		 n->issued / in->seconds, n->useful / in->seconds);
	if (n->issued < AHEAD_NONE * n->blocks)
		advise(w, "nothing is fetched ahead: prefetch=auto, if the policy's class has "
			  "turned it off");
	else
		advise(w,
		       "a deeper window for this memory: [class NAME] window=N in a policy file");
	budget_advice(in, w);
}

void why_judge(const struct why_input *in, struct why *w)
{
	struct store_numbers st[EMF_STATS_STORES] = { 0 };
	struct numbers n;

	memset(w, 0, sizeof(*w));
	if (in->now->mode == EMF_MODE_UNMANAGED) {
		set(w, WHY_UNMANAGED, "it runs unmanaged: nothing is moved");
		advise(w, "its standard error (or EMFATIER_LOG) says why; emfatier doctor says how "
			  "to mend it");
		return;
	}
	if (in->now->mode == EMF_MODE_IDLE) {
		char managed[TEXT_NUMBER], limit[TEXT_NUMBER];

		set(w, WHY_NOTHING, "nothing: all of it fits");
		evidence(w, "%s are managed, the budget is %s: nothing has to move",
			 size((double)in->now->managed_bytes, managed),
			 size((double)in->now->local_limit, limit));
		return;
	}
	measure(in, &n, st, w);
	if (broken_store(in, w) || silent_store(in, st, w))
		return;
	if (w->stall < STALL_LITTLE) {
		set(w, WHY_NOTHING, "nothing: threads hardly ever wait");
		evidence(w, "%.2f%% of the time, summed over threads", 100 * w->stall);
		return;
	}
	if (pinned(in, w) || random_access(in, &n, w) || movers(in, &n, w) || slow_store(in, st, w))
		return;
	if ((wasteful(&n) || cramped(in, &n)) && too_small(in, &n, w))
		return;
	if (late_answers(in, &n, st, w) || full_link(in, &n, st, w) || too_small(in, &n, w))
		return;
	rest(in, &n, w);
}
