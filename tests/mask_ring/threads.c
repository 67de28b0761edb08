/* The C client's reading half against a writer in the same process, for ThreadSanitizer (scripts/sanitizers.sh thread): one writer, two
 * readers, two slots that are used again and again. Exits with 0 when no frame was torn. */
#include "eomt_edge.h"
#include <pthread.h>

enum { WIDTH = 16, HEIGHT = 8, STRIDE = 128 + 64 + 2 * WIDTH * HEIGHT, SLOTS_AT = 4096, BYTES = SLOTS_AT + 2 * STRIDE };
static const uint64_t PUBLICATIONS = 20000;
static uint64_t memory[BYTES / 8];

static void put(size_t at, uint64_t value) { __atomic_store_n(&memory[at / 8], value, __ATOMIC_RELAXED); }

/* Every id, and the row's track, is the sequence. The order is that of crates/client/src/seqlock.rs. */
static void *write_all(void *unused) {
    uint64_t sequence, at;
    (void)unused;
    for (sequence = 1; sequence <= PUBLICATIONS; sequence++) {
        size_t slot = SLOTS_AT + sequence % 2 * STRIDE;
        put(slot + 8, 2 * sequence - 1);
        __atomic_thread_fence(__ATOMIC_RELEASE);
        put(slot, (uint64_t)EOMT_EDGE_ABI_VERSION << 32 | EOMT_EDGE_SLOT_MAGIC);
        put(slot + 16, sequence);
        put(slot + 56, (uint64_t)HEIGHT << 32 | WIDTH);
        put(slot + 64, 0); /* source, flags */
        put(slot + 72, 1); /* one segment */
        put(slot + 128, UINT64_C(0x3f000000) << 32 | 1);
        put(slot + 128 + 24, sequence << 32);
        for (at = 0; at < 2 * WIDTH * HEIGHT; at += 8) put(slot + 192 + at, sequence % 65536 * UINT64_C(0x0001000100010001));
        __atomic_store_n(&memory[(slot + 8) / 8], 2 * sequence, __ATOMIC_RELEASE);
        __atomic_store_n(&memory[offsetof(eomt_edge_ring_header, latest) / 8], sequence, __ATOMIC_RELEASE);
    }
    return NULL;
}

static void *read_all(void *torn) {
    eomt_edge_frame frame = EOMT_EDGE_FRAME_INIT;
    eomt_edge_subscriber sub;
    memset(&sub, 0, sizeof sub);
    sub.event_fd = -1;
    sub.map = (const uint8_t *)memory;
    sub.ring.slot_count = 2;
    sub.ring.max_segments = 1;
    sub.ring.max_width = WIDTH;
    sub.ring.max_height = HEIGHT;
    sub.ring.slots_offset = SLOTS_AT;
    sub.ring.slot_stride = STRIDE;
    sub.ring.table_offset = 128;
    sub.ring.ids_offset = 192;
    while (sub.last < PUBLICATIONS) {
        size_t i;
        int result = eomt_edge_latest(&sub, &frame);
        if (result == EOMT_EDGE_NOTHING) continue;
        if (result != EOMT_EDGE_FRAME || frame.segments[0].track_id != (uint32_t)frame.info.sequence) ++*(int *)torn;
        if (result != EOMT_EDGE_FRAME) break;
        for (i = 0; i < WIDTH * HEIGHT; i++) *(int *)torn += frame.ids[i] != (uint16_t)frame.info.sequence;
    }
    eomt_edge_frame_free(&frame);
    return NULL;
}

int main(void) {
    pthread_t writer, readers[2];
    int torn[2] = {0, 0};
    pthread_create(&readers[0], NULL, read_all, &torn[0]);
    pthread_create(&readers[1], NULL, read_all, &torn[1]);
    pthread_create(&writer, NULL, write_all, NULL);
    pthread_join(writer, NULL);
    pthread_join(readers[0], NULL);
    pthread_join(readers[1], NULL);
    printf("%d torn frames\n", torn[0] + torn[1]);
    return torn[0] + torn[1] != 0;
}
