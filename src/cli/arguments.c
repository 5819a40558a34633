#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "cli/command.h"

static const struct flag *flag_at(const struct flag *flags, size_t i)
{
	return flags[i].name ? &flags[i] : NULL;
}

/* The place of "--name", "--name=value" (len: of the name) or "-x"; -1: none. */
static int find_long(const struct flag *flags, const char *name, size_t len)
{
	for (size_t i = 0; flag_at(flags, i); i++)
		if (strlen(flags[i].name) == len && !memcmp(flags[i].name, name, len))
			return (int)i;
	return -1;
}

static int find_short(const struct flag *flags, char letter)
{
	for (size_t i = 0; flag_at(flags, i); i++)
		if (flags[i].letter == letter)
			return (int)i;
	return -1;
}

static void set_value(struct arguments *a, int i, const char *value)
{
	char *old = a->values[i];
	char joined = a->flags[i].repeats == true ? ',' : a->flags[i].repeats;
	a->values[i] = old && joined ? mf_format("%s%c%s", old, joined, value) : mf_strdup(value);
	free(old);
}

struct reading {
	struct arguments *to;
	int argc, next;
	char **argv;
	struct mf_reason *why;
};

static enum mf_err unknown(struct reading *r, const char *word)
{
	char shown[64];
	return mf_fail(r->why, MF_INVALID, "unknown option %s", mf_printable(shown, sizeof shown, word, strlen(word)));
}

static enum mf_err read_long(struct reading *r, const char *word)
{
	size_t len = strcspn(word + 2, "=");
	int i = find_long(r->to->flags, word + 2, len);
	if (i < 0)
		return unknown(r, word);
	const struct flag *flag = &r->to->flags[i];
	const char *value = word[2 + len] ? word + 2 + len + 1 : NULL;
	if (!flag->argument && value)
		return mf_fail(r->why, MF_INVALID, "--%s takes no value", flag->name);
	if (flag->argument && !value && r->next >= r->argc)
		return mf_fail(r->why, MF_INVALID, "--%s needs a value (%s)", flag->name, flag->argument);
	set_value(r->to, i, !flag->argument ? "" : value ? value : r->argv[r->next++]);
	return MF_OK;
}

static enum mf_err read_short(struct reading *r, const char *word)
{
	for (const char *p = word + 1; *p; p++) {
		int i = find_short(r->to->flags, *p);
		if (i < 0)
			return unknown(r, word);
		const struct flag *flag = &r->to->flags[i];
		if (!flag->argument) {
			set_value(r->to, i, "");
			continue;
		}
		if (!p[1] && r->next >= r->argc)
			return mf_fail(r->why, MF_INVALID, "-%c needs a value (%s)", flag->letter, flag->argument);
		set_value(r->to, i, p[1] ? p + 1 : r->argv[r->next++]);
		break;
	}
	return MF_OK;
}

enum mf_err arguments_parse(const struct flag *flags, int argc, char **argv, bool only_leading, struct arguments *ret,
                            int *ret_used, struct mf_reason *why)
{
	*ret = (struct arguments){ .flags = flags, .operands = mf_alloc_array((size_t)argc + 1, sizeof(char *)) };
	struct reading r = { ret, argc, 1, argv, why };
	bool flags_ended = false;
	enum mf_err e = MF_OK;
	while (r.next < argc && !e) {
		char *word = argv[r.next];
		bool operand = flags_ended || word[0] != '-' || !word[1];
		if (operand && only_leading)
			break;
		r.next++;
		if (operand)
			ret->operands[ret->operand_count++] = word;
		else if (!strcmp(word, "--"))
			flags_ended = true;
		else
			e = word[1] == '-' ? read_long(&r, word) : read_short(&r, word);
	}
	if (e)
		arguments_finish(ret);
	else if (ret_used)
		*ret_used = r.next;
	return e;
}

void arguments_finish(struct arguments *a)
{
	for (size_t i = 0; i < FLAGS_MAX; i++)
		free(a->values[i]);
	free(a->operands);
	*a = (struct arguments){ 0 };
}

const char *arguments_value(const struct arguments *a, const char *name)
{
	int i = a->flags ? find_long(a->flags, name, strlen(name)) : -1;
	return i < 0 ? NULL : a->values[i];
}
