/* Sums numbers, one on each line, until the client has ended its direction. All it needs of a machine is itself. */
#include <stdio.h>

int main(void)
{
	char line[64];
	long long sum = 0, number;

	while (fgets(line, sizeof line, stdin)) {
		if (sscanf(line, "%lld", &number) != 1 || __builtin_add_overflow(sum, number, &sum)) {
			puts("that is no number, or too large a one");
			return 1;
		}
	}
	printf("%lld\n", sum);
	return 0;
}
