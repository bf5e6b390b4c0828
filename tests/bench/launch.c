/* Starts a program and measures it from exec to its end.
 *
 *   launch RESULT SECONDS PROGRAM [ARGUMENT...]
 *
 * Writes to the file RESULT: status, nanoseconds of wall clock, user and system microseconds, peak resident KiB. The
 * program is killed after SECONDS. This is a program of its own because the kernel counts the memory of the process
 * that called exec into the peak: the caller must be small, which a script interpreter is not.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pid_t child;

static void too_long(int number) {
  (void)number;
  kill(child, SIGKILL);
}

static int64_t nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int main(int argc, char** argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: launch RESULT SECONDS PROGRAM [ARGUMENT...]\n");
    return 2;
  }
  const int64_t started = nanoseconds();
  child = fork();
  if (child == 0) {
    execvp(argv[3], argv + 3);
    perror(argv[3]);
    _exit(127);
  }
  signal(SIGALRM, too_long);
  alarm((unsigned)atoi(argv[2]));
  int status = 0;
  struct rusage usage;
  while (wait4(child, &status, 0, &usage) < 0) {
  }
  const int64_t took = nanoseconds() - started;
  FILE* result = fopen(argv[1], "w");
  if (result == NULL) {
    perror(argv[1]);
    return 2;
  }
  const int ended = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  fprintf(result, "%d %lld %lld %lld %ld\n", ended, (long long)took,
          (long long)usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec,
          (long long)usage.ru_stime.tv_sec * 1000000 + usage.ru_stime.tv_usec, usage.ru_maxrss);
  fclose(result);
  return 0;
}
