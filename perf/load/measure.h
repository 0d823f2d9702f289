/* What the load clients share: a clock, a histogram of latencies, arrivals of an open loop, the line of JSON.
 *
 * The histogram has 64 steps per power of two (error < 1.6 %). Open loop: Poisson arrivals at a fixed rate; a latency runs
 * from the intended moment, so that a client or server that falls behind cannot hide it. Everything is static: one
 * program, one thread, one measurement.
 */
#ifndef MEASURE_H
#define MEASURE_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { STEPS = 64, POWERS = 40, MAX_FILE_BYTES = 1 << 26, BACKLOG = 1 << 20 };

static uint64_t histogram[POWERS * STEPS];
static uint64_t answers, not_200, wrong_body, lost, sent_total, sum_ns, max_ns, bytes_sent, bytes_received;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static char *read_file(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        die(path);
    char *data = malloc(MAX_FILE_BYTES);
    *bytes = fread(data, 1, MAX_FILE_BYTES, f);
    fclose(f);
    return data;
}

static inline void record(uint64_t took_ns)
{
    int index = (int)took_ns;
    if (took_ns >= STEPS) {
        int power = 63 - __builtin_clzll(took_ns);
        index = (power - 5) * STEPS + (int)((took_ns >> (power - 6)) & (STEPS - 1));
    }
    histogram[index < POWERS * STEPS ? index : POWERS * STEPS - 1]++;
    answers++;
    sum_ns += took_ns;
    if (took_ns > max_ns)
        max_ns = took_ns;
}

static inline double bucket_middle_us(int index)
{
    if (index < STEPS)
        return index / 1e3;
    int power = index / STEPS + 5;
    double step = (double)(1ull << (power - 6));
    return ((double)(1ull << power) + (index % STEPS + 0.5) * step) / 1e3;
}

static inline double percentile_us(double fraction)
{
    uint64_t target = (uint64_t)(fraction * answers), seen = 0;
    for (int i = 0; i < POWERS * STEPS; i++)
        if ((seen += histogram[i]) > target)
            return bucket_middle_us(i);
    return max_ns / 1e3;
}

/* The warm-up is over: latencies, bytes and answers are counted from here. `sent` stays: CPU time is of the whole run. */
static inline void forget(void)
{
    memset(histogram, 0, sizeof histogram);
    answers = not_200 = wrong_body = sum_ns = max_ns = bytes_sent = bytes_received = 0;
}

/* ---- arrivals of the open loop: those that are due and not yet sent wait in a ring */

static double arrival_gap_ns; /* mean; 0: closed loop */
static double next_arrival_ns;
static uint64_t due[BACKLOG];
static uint64_t due_first, due_end, random_state = 88172645463325252u;

static inline uint64_t due_count(void)
{
    return due_end - due_first;
}

static inline void arrive(uint64_t now)
{
    while (arrival_gap_ns > 0 && next_arrival_ns <= (double)now && due_count() < BACKLOG) {
        due[due_end++ % BACKLOG] = (uint64_t)next_arrival_ns;
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        double uniform = ((double)(random_state >> 11) + 1) / 9007199254740993.0;
        next_arrival_ns -= log(uniform) * arrival_gap_ns;
    }
}

static inline uint64_t take_due(void)
{
    return due[due_first++ % BACKLOG];
}

static inline int print_result(double seconds)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("{\"requests\": %lu, \"not_200\": %lu, \"wrong_body\": %lu, \"lost\": %lu, \"sent\": %lu, \"unsent\": %lu, "
           "\"seconds\": %.6f, \"rate\": %.1f, \"mean_us\": %.3f, \"p50_us\": %.3f, \"p90_us\": %.3f, \"p99_us\": %.3f, "
           "\"max_us\": %.3f, \"bytes_sent\": %lu, \"bytes_received\": %lu, \"client_cpu_s\": %.3f}\n",
           answers, not_200, wrong_body, lost, sent_total, due_count(), seconds, answers / seconds,
           answers ? sum_ns / 1e3 / answers : 0, percentile_us(0.5), percentile_us(0.9), percentile_us(0.99),
           max_ns / 1e3, bytes_sent, bytes_received, cpu);
    return not_200 || wrong_body || lost ? 1 : 0;
}

#endif
