/* The least that reading JSON numbers must cost: std::from_chars over the numbers of a text, into an array.
 *
 * The text is one flat JSON array. Nothing is checked but that each number can be read; what lies between two numbers is
 * one character. One thread. Prints one line of JSON with the nanoseconds of CPU a number.
 *
 *     float_floor ARRAY_FILE SECONDS
 */
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

static double cpu_ns()
{
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static size_t read_numbers(const std::string &text, std::vector<float> &out)
{
    const char *p = text.data() + 1, *end = text.data() + text.size();
    size_t count = 0;
    while (p < end && count < out.size()) {
        auto [next, error] = std::from_chars(p, end, out[count]);
        if (error != std::errc())
            return 0;
        count++;
        p = next + 1;
    }
    return count;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return std::fprintf(stderr, "usage: float_floor ARRAY_FILE SECONDS\n"), 64;
    std::ifstream file(argv[1], std::ios::binary);
    std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    std::vector<float> out(text.size());
    size_t count = read_numbers(text, out), runs = 0;
    if (!count)
        return std::fprintf(stderr, "float_floor: expected a flat JSON array of numbers\n"), 65;
    double began = cpu_ns(), seconds = std::atof(argv[2]), now = began;
    for (; now - began < seconds * 1e9; now = cpu_ns(), runs++)
        if (read_numbers(text, out) != count)
            return 66;
    std::printf("{\"count\": %zu, \"runs\": %zu, \"ns_per_number\": %.4f}\n", count, runs, (now - began) / (count * runs));
}
