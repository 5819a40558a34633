#include "fs/node.h"

/* FUSE_ROOT_ID; not from its header, so that this file stays pure */
#define ROOT_INO 1

enum { ACCOUNT_SHIFT = 56, KIND_SHIFT = 50, PART_SHIFT = 38 };
#define KIND_MASK UINT64_C(0x3f)
#define PART_MASK UINT64_C(0xfff)
#define ID_MASK ((UINT64_C(1) << PART_SHIFT) - 1)

uint64_t node_pack(const struct node *node)
{
	if (node->kind == NODE_ROOT)
		return ROOT_INO;
	return (uint64_t)node->account << ACCOUNT_SHIFT | ((uint64_t)node->kind & KIND_MASK) << KIND_SHIFT |
		((uint64_t)node->part & PART_MASK) << PART_SHIFT | (node->id & ID_MASK);
}

/* what each kind may hold: anything else was never packed */
static bool is_possible(const struct node *n, bool account_is_root)
{
	switch (n->kind) {
	case NODE_ACCOUNT:
		return !account_is_root && n->part == 0 && n->id == 0;
	case NODE_MAILBOX:
	case NODE_MESSAGE:
		return n->part == 0 && n->id != 0;
	case NODE_CONTROL_DIR:
		return n->part == 0 && n->id <= 1;
	case NODE_CONTROL_FILE:
		return n->part != 0 && n->id <= 1;
	case NODE_NOMEDIA:
		return n->account == 0 && n->part == 0 && n->id == 0;
	case NODE_CONTROL_LIST:
		return n->part != 0 && n->id == 0;
	case NODE_HELD:
		return n->part != 0 && n->id != 0;
	case NODE_OUTBOX:
		return n->part <= OUTBOX_FAILURES && n->id == 0;
	case NODE_QUEUED:
		return n->part <= QUEUED_ERROR && n->id != 0;
	case NODE_ROOT:
		break;
	}
	return false;
}

bool node_unpack(uint64_t ino, bool account_is_root, struct node *ret)
{
	if (ino == ROOT_INO) {
		*ret = (struct node){ .kind = account_is_root ? NODE_ACCOUNT : NODE_ROOT };
		return true;
	}
	struct node n = {
		.kind = (enum node_kind)(ino >> KIND_SHIFT & KIND_MASK),
		.account = (uint8_t)(ino >> ACCOUNT_SHIFT),
		.part = (uint16_t)(ino >> PART_SHIFT & PART_MASK),
		.id = ino & ID_MASK,
	};
	if (!is_possible(&n, account_is_root))
		return false;
	*ret = n;
	return true;
}
