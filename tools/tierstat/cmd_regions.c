/* SPDX-License-Identifier: Apache-2.0 */
/* tierstat regions: what there is, where it is, how much of it is in use. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "segment.h"
#include "show.h"
#include "text.h"
#include "tool.h"

#define STRIP 24
#define HOT 9 /* seen in use within the last eight seconds */

static struct emf_map map;

static const char *region_kept(uint32_t kept)
{
	return !kept	  ? ""
	       : kept & 1 ? "locked"
	       : kept & 2 ? "secret"
	       : kept & 4 ? "device"
			  : "pinned";
}

static const char *name_of(const struct emf_map_region *r)
{
	return r->kept ? region_kept(r->kept) : r->class[0] ? r->class : "-";
}

/* One character for so many cells: the state of most of them. */
static void strip(const struct emf_map_region *r)
{
	static const char plain[] = ".Lsm-!KP", *const utf8[] = { " ", "█", "▓", "▒",
								  "░", "!", "■", "▤" };
	static const char *const colours[] = { "0", "32", "36", "33", "90", "31", "34", "35" };
	bool nice = text_utf8(), colour = text_colour();
	unsigned width = r->cells < STRIP ? r->cells : STRIP;

	for (unsigned i = 0; i < width; i++) {
		unsigned votes[EMF_CELL_STATES] = { 0 }, best = 0;
		unsigned from = r->first_cell + i * r->cells / width,
			 to = r->first_cell + (i + 1) * r->cells / width;

		for (unsigned k = from; k < to; k++) {
			unsigned state = map.cell[k] & 15u;

			if (state < EMF_CELL_STATES && ++votes[state] > votes[best])
				best = state;
		}
		if (colour)
			printf("\033[%sm", colours[best]);
		if (nice)
			fputs(utf8[best], stdout);
		else
			putchar(plain[best]);
		if (colour)
			fputs("\033[0m", stdout);
	}
}

static unsigned hot_share(const struct emf_map_region *r)
{
	unsigned hot = 0;

	for (unsigned k = 0; k < r->cells; k++)
		hot += map.cell[r->first_cell + k] >> 4 >= HOT;
	return r->cells ? hot * 100 / r->cells : 0;
}

static void json(const struct emf_stats *s)
{
	printf("{\"pid\": %u, \"block_bytes\": %u, \"blocks_per_cell\": %u, \"regions_total\": %u, "
	       "\"kept_bytes\": %" PRIu64 ", \"regions\": [",
	       s->pid, map.block_bytes, map.blocks_per_cell, map.regions_total, map.kept_bytes);
	for (unsigned i = 0; i < map.nregions; i++) {
		const struct emf_map_region *r = &map.region[i];

		printf("%s\n  {\"start\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"class\": ",
		       i ? "," : "", r->start, r->length);
		json_string(r->class);
		printf(", \"kept\": \"%s\", \"local_bytes\": %" PRIu64
		       ", \"standby_bytes\": %" PRIu64 ", \"placed_bytes\": %" PRIu64
		       ", \"far_bytes\": %" PRIu64 ", \"lost_bytes\": %" PRIu64
		       ", \"hot_percent\": %u, \"cells\": \"",
		       region_kept(r->kept), r->local_bytes, r->standby_bytes, r->placed_bytes,
		       r->far_bytes, r->lost_bytes, hot_share(r));
		for (unsigned k = 0; k < r->cells; k++)
			printf("%02x", map.cell[r->first_cell + k]);
		fputs("\"}", stdout);
	}
	puts(map.nregions ? "\n]}" : "]}");
}

static bool any_placed(void)
{
	for (unsigned i = 0; i < map.nregions; i++)
		if (map.region[i].placed_bytes)
			return true;
	return false;
}

int cmd_regions(const struct options *opt)
{
	static struct emf_stats s;
	int rc = tool_read(opt, &s);

	if (!rc)
		rc = tool_map(opt, &s, &map);
	if (rc)
		return rc;
	text_exact = opt->bytes;
	if (opt->json) {
		json(&s);
		return tool_health(&s);
	}
	bool placed = any_placed();
	int wide = !placed ? 0 : opt->bytes ? 16 : 7;
	printf("%16s %*s %-12s %*s %*s %*s%*s %4s %s%s\n", "ADDRESS", opt->bytes ? 15 : 7, "LENGTH",
	       "CLASS", opt->bytes ? 15 : 6, "LOCAL", opt->bytes ? 15 : 7, "STANDBY",
	       opt->bytes ? 15 : 6, "FAR", wide, placed ? "PLACED" : "", "HOT%",
	       text_utf8() ? "█ local ▓ standby ▒ moving ░ far"
			   : "L local s standby m moving - far",
	       !placed	     ? ""
	       : text_utf8() ? " ▤ in place"
			     : " P in place");
	for (unsigned i = 0; i < map.nregions; i++) {
		const struct emf_map_region *r = &map.region[i];
		char length[TEXT_NUMBER], local[TEXT_NUMBER], standby[TEXT_NUMBER],
		    far[TEXT_NUMBER], there[TEXT_NUMBER], name[13];

		printf("%16" PRIx64 " %*s %-12s %*s %*s %*s%*s %4u ", r->start, opt->bytes ? 15 : 7,
		       text_size(r->length, length), text_printable(name_of(r), name, sizeof(name)),
		       opt->bytes ? 15 : 6, text_size(r->local_bytes, local), opt->bytes ? 15 : 7,
		       text_size(r->standby_bytes, standby), opt->bytes ? 15 : 6,
		       text_size(r->far_bytes, far), wide,
		       placed ? text_size(r->placed_bytes, there) : "", hot_share(r));
		strip(r);
		if (r->lost_bytes) {
			char lost[TEXT_NUMBER];

			printf(" LOST %s", text_size(r->lost_bytes, lost));
		}
		putchar('\n');
	}
	if (map.regions_total > map.nregions)
		printf("and %u regions more\n", map.regions_total - map.nregions);
	return tool_health(&s);
}
