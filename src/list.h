/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists of blocks. A block is on one at most, and knows which (block.h: list).
 * Under engine.lock. list_append and list_remove are block.c's.
 */
#ifndef EMF_LIST_H
#define EMF_LIST_H

#include <stddef.h>

struct block;

struct block_list {
	struct block *head, *tail;
	size_t count;
};

void list_append(struct block_list *l, struct block *b);
/* From whatever list it is on, if any. */
void list_remove(struct block *b);

#endif
