/* A QEMU plugin (API version 1, qemu 7.2 or newer) that counts the AArch64 instructions a program executes, by class.
 *
 *   qemu-aarch64 -plugin liba64count.so,out=counts.txt,hot=blocks.txt,top=400 PROGRAM...
 *
 * The guest instruction `hint #112`, a NOP on every ARMv8, ends a section: the counts since the last one go to `out` as a line
 * `markN key=value ...`, and the translation blocks that executed most instructions in it to `hot`, each as a line
 * `executions instructions share address place word,word,...`. A last line `total` covers the whole run.
 *
 * Counting is per translation block (one addition a block), so the classes are decided when a block is translated.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

enum class {
    ALU, BRANCH, LOAD, STORE, LOAD_SIMD, STORE_SIMD, FMLA_F32, FMLA_F16, DOT, MMLA, BF16, INT_MAC, SIMD, FP_SCALAR, SVE, OTHER,
    CLASSES
};
static const char *const NAMES[CLASSES] = {
    "alu", "branch_sys", "ld_gpr", "st_gpr", "ld_simd", "st_simd", "fmla_f32v", "fmla_f16v", "dot_i8", "mmla_i8", "bf16",
    "int_mulacc_v", "simd_other", "fp_scalar", "sve", "other",
};
static const uint32_t MARKER = 0xd5032e1f; /* hint #112 */

/* A translation block: what one execution of it counts, and how often it was executed. */
struct block {
    uint64_t executed, executed_before; /* now, and at the last marker */
    uint64_t address;
    void *host_address;
    struct block *next;
    uint32_t length, *words;
    uint16_t classes[CLASSES];
    uint32_t load_bytes, store_bytes, macs;
};

static struct block *blocks;
static pthread_mutex_t blocks_lock = PTHREAD_MUTEX_INITIALIZER;
static FILE *out;
static char hot_path[512];
static int markers, threads, hot_blocks = 60;

/* What one instruction is and does. */
struct instruction {
    enum class class;
    uint32_t macs;  /* multiply-accumulates of all lanes */
    uint32_t bytes; /* loaded or stored */
};

static uint32_t bits(uint32_t word, int high, int low) { return (word >> low) & ((1u << (high - low + 1)) - 1); }

static struct instruction with_macs(enum class class, uint32_t macs) { return (struct instruction){class, macs, 0}; }

/* Vectors, "three registers of the same type" and its relatives: bits 28 to 24 are 01110. */
static struct instruction vector_by_vector(uint32_t word) {
    uint32_t wide = bits(word, 30, 30), u = bits(word, 29, 29), size = bits(word, 23, 22);
    if (bits(word, 21, 21) && bits(word, 10, 10)) { /* three same */
        uint32_t op = bits(word, 15, 11);
        if (op == 0x19 && !u) return with_macs(FMLA_F32, (size & 1) ? 2 : (wide ? 4 : 2)); /* fmla, fmls */
        if (op == 0x12) return with_macs(INT_MAC, (wide ? 16 : 8) >> size);                /* mla, mls */
        if (op == 0x13 && !u) return with_macs(INT_MAC, 0);                                /* mul */
        if ((op == 0x1d && !u && !(size & 1)) || (op == 0x19 && u)) return with_macs(FMLA_F16, wide ? 8 : 4); /* fmlal */
        return with_macs(SIMD, 0);
    }
    if (bits(word, 22, 21) == 2 && bits(word, 15, 14) == 0 && bits(word, 10, 10)) { /* three same, half precision */
        return bits(word, 13, 11) == 1 && !u ? with_macs(FMLA_F16, wide ? 8 : 4) : with_macs(SIMD, 0);
    }
    if (!bits(word, 21, 21) && bits(word, 15, 15) && bits(word, 10, 10)) { /* three same, extra */
        uint32_t op = bits(word, 14, 11);
        if (size == 2 && (op == 2 || op == 3)) return with_macs(DOT, wide ? 16 : 8);
        if (size == 2 && (op == 4 || op == 5)) return with_macs(MMLA, 32);
        if (u && (op == 15 || op == 13)) return with_macs(BF16, op == 13 ? 16 : 8);
        return with_macs(SIMD, 0);
    }
    if (bits(word, 21, 21) && bits(word, 11, 10) == 0) { /* three different */
        uint32_t op = bits(word, 15, 12);
        if (op == 8 || op == 10) return with_macs(INT_MAC, 8 >> size); /* smlal, smlsl and unsigned */
        if (op == 12) return with_macs(INT_MAC, 0);                    /* smull, umull */
    }
    return with_macs(SIMD, 0);
}

/* Vectors, one operand an element of a register: bits 28 to 24 are 01111. */
static struct instruction vector_by_element(uint32_t word) {
    uint32_t wide = bits(word, 30, 30), u = bits(word, 29, 29), size = bits(word, 23, 22), op = bits(word, 15, 12);
    uint32_t floats = wide ? 4 : 2, bytes = wide ? 16 : 8;
    if (bits(word, 10, 10)) return with_macs(SIMD, 0); /* shifts by an immediate */
    if ((op == 1 || op == 5) && !u) {
        return size == 0 ? with_macs(FMLA_F16, wide ? 8 : 4) : with_macs(FMLA_F32, size == 3 ? 2 : floats);
    }
    if (op == 14 && size == 2) return with_macs(DOT, bytes);
    if (op == 15 && !u) return (size == 0 || size == 2) ? with_macs(DOT, bytes) : with_macs(BF16, 8);
    if (size == 2 && ((op == 0 && !u) || (op == 4 && !u) || (u && (op == 8 || op == 12)))) return with_macs(FMLA_F16, floats);
    if (op == 2 || op == 6 || (u && (op == 0 || op == 4))) return with_macs(INT_MAC, size == 1 ? 4 : 2);
    if (op == 10 || (op == 8 && !u)) return with_macs(INT_MAC, 0);
    return with_macs(SIMD, 0);
}

static struct instruction vector_or_float(uint32_t word) {
    if (bits(word, 28, 28)) return with_macs(FP_SCALAR, (bits(word, 31, 24) & 0x5f) == 0x1f);
    if (bits(word, 31, 31)) return with_macs(OTHER, 0);
    return bits(word, 28, 24) == 0x0e ? vector_by_vector(word) : vector_by_element(word);
}

/* Structures: ld1 to ld4, st1 to st4. */
static uint32_t structure_bytes(uint32_t word) {
    uint32_t op = bits(word, 15, 12), wide = bits(word, 30, 30);
    if (!bits(word, 24, 24)) {
        uint32_t registers = op == 7 ? 1 : (op == 10 || op == 8) ? 2 : (op == 6 || op == 4) ? 3 : 4;
        return (wide ? 16 : 8) * registers;
    }
    uint32_t registers = 1 + bits(word, 21, 21) + 2 * bits(word, 13, 13), scale = bits(word, 15, 14);
    uint32_t element = scale == 3 ? 1u << bits(word, 11, 10) : scale == 2 ? (bits(word, 10, 10) ? 8 : 4) : 1u << scale;
    return registers * element;
}

static struct instruction load_or_store(uint32_t word) {
    const struct instruction other = {OTHER, 0, 0};
    uint32_t vector = bits(word, 26, 26), group = bits(word, 29, 28), size = bits(word, 31, 30), op = bits(word, 23, 22);
    uint32_t load = bits(word, 22, 22), bytes;
    if (group == 2) { /* pairs */
        bytes = vector ? (8u << size) : (size == 2 ? 16 : 8);
    } else if (group == 3) { /* one register */
        int atomic = !bits(word, 24, 24) && bits(word, 21, 21) && bits(word, 11, 10) == 0;
        if (vector) {
            load = op & 1;
            bytes = (op & 2) ? 16 : 1u << size;
        } else {
            if (size == 3 && op == 2 && !atomic) return other; /* prefetch */
            load = op != 0 || atomic;
            bytes = 1u << size;
        }
    } else if (group == 1) { /* relative to the program counter, and ARMv8.4's unscaled */
        int literal = !bits(word, 24, 24);
        if (literal && !vector && size == 3) return other; /* prefetch */
        load = literal || op != 0;
        bytes = !literal ? 8 : vector ? (4u << size) : (size & 1 ? 8 : 4);
    } else { /* structures, exclusives */
        bytes = vector ? structure_bytes(word) : 1u << size;
    }
    return (struct instruction){vector ? (load ? LOAD_SIMD : STORE_SIMD) : (load ? LOAD : STORE), 0, bytes};
}

static struct instruction classify(uint32_t word) {
    uint32_t group = bits(word, 28, 25);
    if ((group & 5) == 4) return load_or_store(word);
    if ((group & 7) == 7) return vector_or_float(word);
    if ((group & 7) == 5 || (group & 14) == 8) return with_macs(ALU, 0);
    if ((group & 14) == 10) return with_macs(BRANCH, 0);
    return with_macs(group == 2 ? SVE : OTHER, 0);
}

static uint64_t executed_since(const struct block *block, int whole_run) {
    return block->executed - (whole_run ? 0 : block->executed_before);
}

static int by_instructions(const void *left, const void *right) {
    const struct block *a = *(struct block *const *)left, *b = *(struct block *const *)right;
    uint64_t x = executed_since(a, 0) * a->length, y = executed_since(b, 0) * b->length;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* The file and offset that a host address maps. */
static void describe_place(void *host_address, char *text, size_t size) {
    snprintf(text, size, "?");
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[1024];
    while (maps && fgets(line, sizeof line, maps)) {
        unsigned long start, end, offset, at = (unsigned long)host_address;
        char name[600] = "";
        if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %599s", &start, &end, &offset, name) < 3 || at < start || at >= end) continue;
        char *slash = strrchr(name, '/');
        snprintf(text, size, "%s+0x%lx", slash ? slash + 1 : name[0] ? name : "anon", at - start + offset);
        break;
    }
    if (maps) fclose(maps);
}

static void write_hot_blocks(size_t count, uint64_t instructions) {
    struct block **sorted = malloc(count * sizeof *sorted);
    size_t index = 0;
    for (struct block *block = blocks; block; block = block->next) sorted[index++] = block;
    qsort(sorted, count, sizeof *sorted, by_instructions);
    FILE *file = fopen(hot_path, "w");
    for (index = 0; file && index < count && index < (size_t)hot_blocks; index++) {
        const struct block *block = sorted[index];
        uint64_t executed = executed_since(block, 0);
        if (!executed) break;
        char place[700];
        describe_place(block->host_address, place, sizeof place);
        double share = instructions ? 100.0 * executed * block->length / instructions : 0;
        fprintf(file, "%lu %u %.3f%% 0x%lx %s ", executed, block->length, share, block->address, place);
        for (uint32_t word = 0; word < block->length; word++)
            fprintf(file, "%08x%c", block->words[word], word + 1 < block->length ? ',' : '\n');
    }
    if (file) fclose(file);
    free(sorted);
}

static void report(const char *what, int whole_run) {
    uint64_t classes[CLASSES] = {0}, instructions = 0, macs = 0, loaded = 0, stored = 0;
    size_t count = 0;
    pthread_mutex_lock(&blocks_lock);
    for (struct block *block = blocks; block; block = block->next, count++) {
        uint64_t executed = executed_since(block, whole_run);
        instructions += executed * block->length;
        macs += executed * block->macs;
        loaded += executed * block->load_bytes;
        stored += executed * block->store_bytes;
        for (int class = 0; class < CLASSES; class++) classes[class] += executed * block->classes[class];
    }
    fprintf(out, "%s insns=%lu", what, instructions);
    for (int class = 0; class < CLASSES; class++)
        if (classes[class]) fprintf(out, " %s=%lu", NAMES[class], classes[class]);
    fprintf(out, " fused_macs=%lu ld_bytes=%lu st_bytes=%lu tbs=%zu vcpus=%d\n", macs, loaded, stored, count, threads);
    fflush(out);
    if (!whole_run) {
        if (hot_path[0]) write_hot_blocks(count, instructions);
        for (struct block *block = blocks; block; block = block->next) block->executed_before = block->executed;
    }
    pthread_mutex_unlock(&blocks_lock);
}

static void on_marker(unsigned int cpu, void *data) {
    (void)cpu, (void)data;
    char name[32];
    snprintf(name, sizeof name, "mark%d", markers++);
    report(name, 0);
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    (void)id;
    struct block *block = calloc(1, sizeof *block);
    block->length = qemu_plugin_tb_n_insns(tb);
    block->words = malloc(4 * block->length);
    block->address = qemu_plugin_tb_vaddr(tb);
    for (uint32_t index = 0; index < block->length; index++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, index);
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(insn), 4);
        block->words[index] = word;
        if (index == 0) block->host_address = qemu_plugin_insn_haddr(insn);
        struct instruction what = classify(word);
        block->classes[what.class]++;
        block->macs += what.macs;
        if (what.class == LOAD || what.class == LOAD_SIMD) block->load_bytes += what.bytes;
        if (what.class == STORE || what.class == STORE_SIMD) block->store_bytes += what.bytes;
        if (word == MARKER) qemu_plugin_register_vcpu_insn_exec_cb(insn, on_marker, QEMU_PLUGIN_CB_NO_REGS, 0);
    }
    pthread_mutex_lock(&blocks_lock);
    block->next = blocks;
    blocks = block;
    pthread_mutex_unlock(&blocks_lock);
    qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &block->executed, 1);
}

static void on_thread(qemu_plugin_id_t id, unsigned int cpu) {
    (void)id, (void)cpu;
    __sync_fetch_and_add(&threads, 1);
}

static void on_end(qemu_plugin_id_t id, void *data) {
    (void)id, (void)data;
    report("total", 1);
    if (out != stderr) fclose(out);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
    (void)info;
    out = stderr;
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "out=", 4)) {
            out = fopen(argv[i] + 4, "w");
            if (!out) {
                perror(argv[i] + 4);
                return -1;
            }
        } else if (!strncmp(argv[i], "hot=", 4)) {
            snprintf(hot_path, sizeof hot_path, "%s", argv[i] + 4);
        } else if (!strncmp(argv[i], "top=", 4)) {
            hot_blocks = atoi(argv[i] + 4);
        }
    }
    qemu_plugin_register_vcpu_init_cb(id, on_thread);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_atexit_cb(id, on_end, 0);
    return 0;
}
