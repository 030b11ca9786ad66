/* SPDX-License-Identifier: Apache-2.0 */
/* emfatierd: lends this machine's memory by RDMA to emfatier on others. */
#include <errno.h>
#include <signal.h>

#include "notify.h"
#include "options.h"
#include "sandbox.h"
#include "../common/say.h"
#include "server.h"

#define MOST_LEASES 1024u

static struct options options;
static struct pool pool;
static struct desk desk;

static int serve(void)
{
	char why[256];
	int rc = server_open(&desk, &options, why, sizeof(why));

	if (!rc)
		rc = sandbox_seal(why, sizeof(why));
	if (rc) {
		server_close();
		return say(EXIT_WRONG, "%s", why);
	}
	say(0, "lending %llu MiB, in slabs of %llu MiB%s",
	    (unsigned long long)(pool.nslabs * pool.slab_bytes >> 20),
	    (unsigned long long)(pool.slab_bytes >> 20), pool.huge ? ", of huge pages" : "");
	notify_send("READY=1");
	rc = server_run();
	server_close();
	return rc ? EXIT_WRONG : 0;
}

int main(int argc, char **argv)
{
	sigset_t signals;
	char why[256];
	int rc = options_parse(&options, argc, argv);

	if (rc >= 0)
		return rc;
	if (!server_possible())
		return say(EXIT_WRONG, "there is no RDMA device on this machine");
	/* Until the loop reads them: a start that is given up is none. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sandbox_limits();
	rc = pool_open(&pool, &options.pool, why, sizeof(why));
	if (!rc)
		rc = sandbox_drop(options.user, why, sizeof(why));
	if (rc)
		return say(rc == -EINVAL ? EXIT_USAGE : EXIT_WRONG, "%s", why);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	notify_open();
	desk.leases = (struct leases){
		.pool = &pool,
		.tenant = options.tenant,
		.ntenants = options.ntenants,
		.most = MOST_LEASES,
		.lasts = options.lease_ms * 1000000ull,
	};
	rc = serve();
	leases_close(&desk.leases);
	pool_close(&pool);
	return rc;
}
