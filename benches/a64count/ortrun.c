/* ortrun LIBONNXRUNTIME MODEL RUNS HEIGHT WIDTH: runs a network in ONNX Runtime, one thread, under the instruction counter.
 *
 * `hint #112` marks the end of loading and of each run. The input is the tensor of `eomt-edge bench --mark`. Functions of the C
 * API are called by their place in its table, which only grows at its end.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__aarch64__)
#define MARK() __asm__ volatile("hint #112" ::: "memory")
#else
#define MARK()
#endif

enum { TABLE_VERSION = 16, LOG_ERRORS = 3, OPTIMIZE_ALL = 99, FLOAT = 1, OUTPUTS_MAX = 8 };

typedef void *status;
struct api_base {
    void *const *(*get_api)(uint32_t version);
    const char *(*get_version)(void);
};
static void *const *table;
#define CALL(slot, result, ...) ((result(*)(__VA_ARGS__))table[slot])

static void check(status outcome, const char *what) {
    if (!outcome) return;
    fprintf(stderr, "ortrun: %s: %s\n", what, CALL(2, const char *, status)(outcome));
    exit(1);
}

static void *open_session(const char *model) {
    void *env, *options, *session;
    check(CALL(3, status, int, const char *, void **)(LOG_ERRORS, "ortrun", &env), "environment");
    check(CALL(6, status, void *)(env), "telemetry");
    check(CALL(10, status, void **)(&options), "options");
    check(CALL(23, status, void *, int)(options, OPTIMIZE_ALL), "optimization level");
    check(CALL(24, status, void *, int)(options, 1), "threads inside an operator");
    check(CALL(25, status, void *, int)(options, 1), "operators side by side");
    check(CALL(7, status, void *, const char *, void *, void **)(env, model, options, &session), model);
    return session;
}

static void *fixed_tensor(int64_t height, int64_t width) {
    int64_t shape[4] = {1, 3, height, width};
    size_t length = 3 * height * width;
    float *values = malloc(length * sizeof *values);
    for (size_t i = 0; i < length; i++) values[i] = ((float)(i % 251) - 125.0f) / 60.0f;
    void *memory, *tensor;
    check(CALL(69, status, int, int, void **)(0, 0, &memory), "memory");
    check(CALL(49, status, void *, void *, size_t, const int64_t *, size_t, int, void **)(
              memory, values, length * sizeof *values, shape, 4, FLOAT, &tensor), "input");
    return tensor;
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: ortrun LIBONNXRUNTIME MODEL RUNS HEIGHT WIDTH\n");
        return 2;
    }
    void *library = dlopen(argv[1], RTLD_NOW);
    if (!library) {
        fprintf(stderr, "ortrun: %s\n", dlerror());
        return 1;
    }
    const struct api_base *(*get_base)(void) = (const struct api_base *(*)(void))dlsym(library, "OrtGetApiBase");
    if (!get_base || !(table = get_base()->get_api(TABLE_VERSION))) {
        fprintf(stderr, "ortrun: %s: not an ONNX Runtime of 1.16 or newer\n", argv[1]);
        return 1;
    }
    printf("onnxruntime %s\n", get_base()->get_version());
    void *session = open_session(argv[2]), *input = fixed_tensor(atoi(argv[4]), atoi(argv[5])), *allocator;
    size_t outputs;
    char *input_name, *names[OUTPUTS_MAX];
    check(CALL(31, status, void *, size_t *)(session, &outputs), "outputs");
    if (outputs > OUTPUTS_MAX) outputs = OUTPUTS_MAX;
    check(CALL(78, status, void **)(&allocator), "allocator");
    check(CALL(36, status, void *, size_t, void *, char **)(session, 0, allocator, &input_name), "input name");
    for (size_t i = 0; i < outputs; i++)
        check(CALL(37, status, void *, size_t, void *, char **)(session, i, allocator, &names[i]), "output name");
    MARK();
    for (int run = 0; run < atoi(argv[3]); run++) {
        void *values[OUTPUTS_MAX] = {0};
        check(CALL(9, status, void *, void *, const char *const *, void *const *, size_t, const char *const *, size_t, void **)(
                  session, NULL, (const char *const *)&input_name, &input, 1, (const char *const *)names, outputs, values), "run");
        MARK();
        for (size_t i = 0; i < outputs; i++) CALL(96, void, void *)(values[i]);
    }
    return 0;
}
