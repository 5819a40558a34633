/* peer.h: who asks: the process behind a request, as /proc shows it. */
#ifndef MF_FS_PEER_H
#define MF_FS_PEER_H

#include <stdbool.h>
#include <sys/types.h>

/* The process of a thread (fuse_req_ctx() tells threads); 0: it cannot be seen, or is gone */
pid_t peer_process(pid_t thread);
/* It serves files to other machines (nfsd, smbd and their like), and closes them when it suits it; false: not known to */
bool peer_exports(pid_t process);

#endif
