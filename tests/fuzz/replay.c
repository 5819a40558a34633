/* Runs a fuzz target over files: replay FILE|DIRECTORY... */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "fuzz/fuzz.h"

#define INPUT_MAX (1 << 20)

static unsigned long count;

static int replay_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	if (!file) {
		perror(path);
		return 1;
	}
	MF_CLEANUP(mf_free) uint8_t *big = mf_alloc(INPUT_MAX);
	size_t size = fread(big, 1, INPUT_MAX, file);
	fclose(file);
	MF_CLEANUP(mf_free) uint8_t *data = mf_alloc(size); /* exactly as long, so that a read behind it is seen */
	memcpy(data, big, size);
	fprintf(stderr, "%s\r", path); /* what stands there last is what failed */
	LLVMFuzzerTestOneInput(data, size);
	count++;
	return 0;
}

static int replay(const char *path)
{
	struct stat st;
	if (stat(path, &st) < 0) {
		perror(path);
		return 1;
	}
	if (!S_ISDIR(st.st_mode))
		return replay_file(path);
	DIR *directory = opendir(path);
	if (!directory) {
		perror(path);
		return 1;
	}
	int bad = 0;
	for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
		if (entry->d_name[0] == '.')
			continue;
		MF_CLEANUP(mf_free) char *name = mf_format("%s/%s", path, entry->d_name);
		bad |= replay_file(name);
	}
	closedir(directory);
	return bad;
}

int main(int argc, char **argv)
{
	int bad = argc < 2;
	for (int i = 1; i < argc; i++)
		bad |= replay(argv[i]);
	fprintf(stderr, "\n");
	printf("%s: %lu inputs\n", argv[0], count);
	return bad || count == 0;
}
