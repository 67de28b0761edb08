/* Receive segmentation masks of a running eomt-edge daemon: one header, C11 or C++17, Linux, 64-bit little-endian.
 *
 *     eomt_edge_subscriber sub;
 *     eomt_edge_frame frame = EOMT_EDGE_FRAME_INIT;
 *     if (eomt_edge_connect(&sub, "/run/eomt-edge/masks.sock") != 0) { fprintf(stderr, "%s\n", sub.error); return 1; }
 *     while (eomt_edge_next(&sub, &frame, -1) == EOMT_EDGE_FRAME) {
 *         // frame.ids[y * frame.info.width + x], frame.segments[i], eomt_edge_label(&sub, frame.segments[i].class_index)
 *     }
 *     eomt_edge_frame_free(&frame);
 *     eomt_edge_close(&sub);
 *
 * A frame is the reader's own copy. A slow reader gets the newest frame and skips the ones in between (sub.skipped); it never
 * blocks the daemon and never gets a torn frame. Whatever listens on the socket: no call lasts longer than its timeout
 * (CLOCK_MONOTONIC), no row lies outside of its frame, and no failure leaks memory or a descriptor.
 * A subscriber must not be used by two threads at once. The byte layout is that
 * of crates/client/src/layout.rs in the eomt-edge repository; examples/c/subscriber.c is a whole program. Include this header first, or compile with -D_GNU_SOURCE. */
#ifndef EOMT_EDGE_H
#define EOMT_EDGE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#if defined(__GLIBC__) && !defined(__USE_GNU)
#error "eomt_edge.h: include it before other headers, or compile with -D_GNU_SOURCE"
#endif
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "eomt_edge.h: the mask ring is little-endian"
#endif

#ifdef __cplusplus
#define EOMT_EDGE_ASSERT(condition) static_assert(condition, #condition)
extern "C" {
#else
#define EOMT_EDGE_ASSERT(condition) _Static_assert(condition, #condition)
#endif

/* ---- layout ---------------------------------------------------------------------------------------------------------- */

#define EOMT_EDGE_ABI_VERSION 2u /* rings of ABI 1 are read as well */
#define EOMT_EDGE_ABI_OLDEST 1u
#define EOMT_EDGE_RING_MAGIC UINT64_C(0x474e4952544d4f45)  /* "EOMTRING" */
#define EOMT_EDGE_HELLO_MAGIC UINT64_C(0x4f4c4548544d4f45) /* "EOMTHELO" */
#define EOMT_EDGE_SLOT_MAGIC UINT32_C(0x544f4c53)          /* "SLOT" */
#define EOMT_EDGE_SLOT_HEADER_BYTES_V1 128u /* of ABI 1 */
#define EOMT_EDGE_MAX_ROW_BYTES 4096u
#define EOMT_EDGE_MIN_SLOTS 2u
#define EOMT_EDGE_MAX_SLOTS 64u
#define EOMT_EDGE_MAX_SIDE 16384u
#define EOMT_EDGE_MAX_SEGMENTS 65535u
#define EOMT_EDGE_MAX_RING_BYTES (UINT64_C(4) << 30)  /* no more is mapped, whatever a hello announces */
#define EOMT_EDGE_MAX_TEXT_BYTES (UINT64_C(16) << 20) /* of the labels, and of the metadata */
#define EOMT_EDGE_HELLO_OK 0u

/* eomt_edge_slot_info.flags */
#define EOMT_EDGE_STALE 1u        /* published_ns - captured_ns exceeds the daemon's source.no_signal_after (2 s; 0 = no limit) */
#define EOMT_EDGE_NO_SIGNAL 2u    /* the source gives no frames; the id map is empty, captured_ns that of the last frame */
#define EOMT_EDGE_HAS_FRAME 4u    /* the camera frame is filled */
#define EOMT_EDGE_HAS_CHECKSUM 8u /* checksum is the CRC-32 of 32 bytes of each segment row, id map and camera frame */
#define EOMT_EDGE_TRUNCATED 16u   /* there were more segments than the table holds */

/* eomt_edge_slot_info.frame_format: a V4L2 pixel format, without padding, whose first letter is the lowest byte */
#define EOMT_EDGE_FOURCC(a, b, c, d) ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)
#define EOMT_EDGE_RGB24 EOMT_EDGE_FOURCC('R', 'G', 'B', '3')
#define EOMT_EDGE_MJPEG EOMT_EDGE_FOURCC('M', 'J', 'P', 'G') /* one JPEG picture, perhaps without Huffman tables */
/* eomt_edge_slot_info.frame_colour, of YUV formats: */
#define EOMT_EDGE_BT709 1u      /* else BT.601 */
#define EOMT_EDGE_FULL_RANGE 2u /* samples of 0 to 255, else 16 to 235 and 240 */

typedef struct eomt_edge_hello {
    uint64_t magic;
    uint32_t abi_version, status;
    uint64_t generation, ring_bytes;
    uint32_t writer_pid, reserved;
    char message[88];
} eomt_edge_hello;

typedef struct eomt_edge_ring_info {
    uint64_t magic;
    uint32_t abi_version, header_bytes, slot_count, max_segments, max_width, max_height;
    uint64_t slots_offset, slot_stride, total_bytes, table_offset, ids_offset, frame_offset; /* frame_offset 0: no frames */
    uint64_t labels_offset, labels_bytes, metadata_offset, metadata_bytes;
    uint32_t label_count, flags, writer_pid, row_bytes; /* row_bytes: from row to row of the segment table */
    uint64_t created_ns, reserved_words[7];
} eomt_edge_ring_info;

typedef struct eomt_edge_ring_header {
    eomt_edge_ring_info info;
    uint64_t latest, heartbeat_ns;
    uint32_t closed, reserved[11];
} eomt_edge_ring_header;

typedef struct eomt_edge_slot_info {
    uint64_t sequence;                   /* counts publications of the ring from 1 */
    uint64_t frame_sequence;             /* the source's own frame counter */
    uint64_t captured_ns, published_ns;  /* CLOCK_MONOTONIC */
    uint64_t dropped;                    /* frames whose processing never began, since the start: busy + source + corrupt */
    uint32_t width, height;              /* pixels */
    uint32_t source_id;                  /* another one for another source or camera, the same after a restart; 0 = no frame yet */
    uint32_t flags, segment_count, checksum;
    uint32_t stage_us[4];                /* microseconds of preprocess, infer, segment, publish */
    uint8_t model_hash[16];
    uint64_t stamp_ns;                   /* the source's own time stamp (a recording, ROS): since 1970; 0 = none */
    uint64_t dropped_busy;               /* a newer one took their place before the network was free (this and below: since the start) */
    uint64_t dropped_source;             /* lost before the daemon saw them */
    uint64_t dropped_corrupt;            /* arrived damaged */
    uint64_t failed;                     /* processed, and came to nothing */
    uint32_t frame_format, frame_stride; /* with HAS_FRAME: see EOMT_EDGE_FOURCC; bytes from row to row of plane 0, 0 = compressed */
    uint32_t frame_bytes, frame_colour;
    uint64_t reserved[11];
} eomt_edge_slot_info;

typedef struct eomt_edge_slot_header {
    uint32_t magic, abi_version;
    uint64_t lock;
    eomt_edge_slot_info info;
} eomt_edge_slot_header;

typedef struct eomt_edge_segment {
    uint16_t id;          /* in the id map; from 1 */
    uint16_t class_index; /* into the labels */
    float score;
    uint32_t bbox[4];     /* x, y, width, height */
    uint32_t area;        /* pixels */
    uint32_t track_id;    /* 0 = not tracked */
} eomt_edge_segment;

EOMT_EDGE_ASSERT(sizeof(void *) == 8);
EOMT_EDGE_ASSERT(sizeof(eomt_edge_hello) == 128 && offsetof(eomt_edge_hello, message) == 40);
EOMT_EDGE_ASSERT(sizeof(eomt_edge_ring_info) == 192 && offsetof(eomt_edge_ring_info, slots_offset) == 32);
EOMT_EDGE_ASSERT(offsetof(eomt_edge_ring_info, labels_offset) == 80 && offsetof(eomt_edge_ring_info, created_ns) == 128);
EOMT_EDGE_ASSERT(sizeof(eomt_edge_ring_header) == 256 && offsetof(eomt_edge_ring_header, latest) == 192);
EOMT_EDGE_ASSERT(offsetof(eomt_edge_ring_header, closed) == 208);
EOMT_EDGE_ASSERT(sizeof(eomt_edge_slot_info) == 240 && offsetof(eomt_edge_slot_info, width) == 40);
EOMT_EDGE_ASSERT(offsetof(eomt_edge_slot_info, stage_us) == 64 && offsetof(eomt_edge_slot_info, model_hash) == 80);
EOMT_EDGE_ASSERT(offsetof(eomt_edge_slot_info, stamp_ns) == 96 && offsetof(eomt_edge_slot_info, frame_format) == 136);
EOMT_EDGE_ASSERT(sizeof(eomt_edge_slot_header) == 256 && offsetof(eomt_edge_slot_header, lock) == 8);
EOMT_EDGE_ASSERT(sizeof(eomt_edge_segment) == 32 && offsetof(eomt_edge_segment, bbox) == 8);

/* ---- what a program uses --------------------------------------------------------------------------------------------- */

/* Results of eomt_edge_next and eomt_edge_latest. */
#define EOMT_EDGE_FRAME 1    /* a new frame */
#define EOMT_EDGE_NOTHING 0  /* no newer frame (in time) */
#define EOMT_EDGE_ERROR (-1) /* sub->error says what */
#define EOMT_EDGE_ENDED (-2) /* the daemon stopped or died; close and connect again */

typedef struct eomt_edge_frame {
    eomt_edge_slot_info info;
    eomt_edge_segment *segments; /* info.segment_count */
    uint16_t *ids;               /* height x width, 0 = nothing */
    uint8_t *picture;            /* the camera frame, info.frame_bytes of info.frame_format, or NULL */
    uint8_t *rgb;                /* the same if it is RGB24, height x width x 3; else NULL */
    /* room in the buffers, which grow to the largest frame and stay */
    size_t segments_room, ids_room, picture_room;
    uint8_t *picture_buffer;
} eomt_edge_frame;

#ifdef __cplusplus
#define EOMT_EDGE_FRAME_INIT eomt_edge_frame()
#else
#define EOMT_EDGE_FRAME_INIT {.info = {0}}
#endif

typedef struct eomt_edge_subscriber {
    int socket_fd, event_fd, epoll_fd; /* event_fd: a timer (of other daemons an eventfd or a pipe); -1 once it has hung up */
    const uint8_t *map;
    char *text;          /* copies: the labels, each with its NUL, then the metadata and a NUL */
    const char **labels; /* label_count of them, in `text` */
    size_t label_count;
    eomt_edge_ring_info ring;
    uint64_t generation; /* counts the rings of one daemon; a reload makes a new one */
    uint64_t last;       /* newest sequence returned */
    uint64_t skipped;    /* frames that this reader was too slow for */
    uint64_t retries;    /* copies thrown away because the writer came by */
    int ended_cleanly;   /* after EOMT_EDGE_ENDED: the daemon said goodbye */
    char path[108];
    char error[448];     /* a sentence, after a failure; without control characters, whatever the daemon wrote */
} eomt_edge_subscriber;

/* All three return 0 or -1 and are over when the time is: with connecting, accepting and the hello. `connect` takes 5 s, -1 ms is forever. */
static inline int eomt_edge_connect(eomt_edge_subscriber *sub, const char *path);
static inline int eomt_edge_connect_within(eomt_edge_subscriber *sub, const char *path, int timeout_ms); /* one attempt */
static inline int eomt_edge_connect_retry(eomt_edge_subscriber *sub, const char *path, int timeout_ms); /* until there is a daemon */
static inline int eomt_edge_next(eomt_edge_subscriber *sub, eomt_edge_frame *frame, int timeout_ms); /* -1 ms: forever */
static inline int eomt_edge_latest(eomt_edge_subscriber *sub, eomt_edge_frame *frame); /* never waits, misses the end */
static inline int eomt_edge_fd(const eomt_edge_subscriber *sub); /* for poll: readable when there is a frame or an end */
static inline const char *eomt_edge_label(const eomt_edge_subscriber *sub, unsigned class_index); /* NULL: no such class */
static inline const char *eomt_edge_metadata(const eomt_edge_subscriber *sub, size_t *bytes);     /* JSON */
/* Copies what fits of a label, with its control characters as '?': what a terminal may see. Returns `to`. */
static inline const char *eomt_edge_plain(char *to, size_t room, const char *from);
static inline int eomt_edge_checksum_ok(const eomt_edge_frame *frame); /* 1, 0, or -1: the ring has no checksums */
static inline uint32_t eomt_edge_crc32(uint32_t crc, const void *bytes, size_t count); /* as zlib's */
static inline int64_t eomt_edge_now_ms(void); /* CLOCK_MONOTONIC, which all timeouts here use */
static inline void eomt_edge_frame_free(eomt_edge_frame *frame);
static inline void eomt_edge_close(eomt_edge_subscriber *sub);

/* ---- how it works ---------------------------------------------------------------------------------------------------- */

/* Like EOMT_EDGE_ERROR, and a later attempt to connect may succeed. */
#define EOMT_EDGE_AGAIN_ (-3)

static inline const char *eomt_edge_plain(char *to, size_t room, const char *from) {
    const unsigned char *in = (const unsigned char *)from;
    size_t at;
    for (at = 0; at + 1 < room && in[at] != 0; at++) {
        /* C0, DEL, and as UTF-8 writes them: C1, and what turns text around (U+2028 to U+202E, U+2066 to U+2069); to == from is allowed */
        unsigned char last = at > 0 ? (unsigned char)to[at - 1] : 0, now = in[at];
        int c1 = last == 0xc2 && now >= 0x80 && now < 0xa0;
        int turns = at > 1 && (unsigned char)to[at - 2] == 0xe2 &&
                    ((last == 0x80 && now >= 0xa8 && now <= 0xae) || (last == 0x81 && now >= 0xa6 && now <= 0xa9));
        to[at] = now < 0x20 || now == 0x7f || c1 || turns ? '?' : (char)now;
        if (c1 || turns) to[at - 1] = '?';
        if (turns) to[at - 2] = '?';
    }
    if (room > 0) to[at] = '\0';
    return to;
}

static inline int eomt_edge_fail_(eomt_edge_subscriber *sub, const char *what, const char *detail) {
    snprintf(sub->error, sizeof sub->error, "mask socket %.107s: %.180s%s%.120s", sub->path, what, detail[0] ? ": " : "", detail);
    eomt_edge_plain(sub->error, sizeof sub->error, sub->error);
    return EOMT_EDGE_ERROR;
}

static inline int64_t eomt_edge_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Milliseconds until `deadline`, at least 0; -1 for none (a deadline of -1). */
static inline int eomt_edge_left_(int64_t deadline) {
    int64_t left = deadline - eomt_edge_now_ms();
    return deadline < 0 ? -1 : left < 0 ? 0 : left > 1000000 ? 1000000 : (int)left;
}

static inline uint64_t eomt_edge_load_(const uint8_t *at) {
    return __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_RELAXED);
}

/* Copies by whole aligned words: areas start at multiples of 64 and are padded to them. */
static inline void eomt_edge_copy_(void *to, const uint8_t *from, size_t bytes) {
    uint8_t *out = (uint8_t *)to;
    size_t at;
    for (at = 0; at < bytes; at += 8) {
        uint64_t word = eomt_edge_load_(from + at);
        memcpy(out + at, &word, bytes - at < 8 ? bytes - at : 8);
    }
}

static inline size_t eomt_edge_slot_header_bytes_(const eomt_edge_ring_info *ring) {
    return ring->abi_version == 1 ? EOMT_EDGE_SLOT_HEADER_BYTES_V1 : sizeof(eomt_edge_slot_header);
}

/* Whether everything that the header describes lies inside `bytes` bytes. Sides are at most 2^14 and the offsets at most 2^40
 * (checked first), so no sum or product wraps. */
static inline int eomt_edge_ring_is_sound_(const eomt_edge_ring_info *r, uint64_t bytes) {
    const uint64_t big = UINT64_C(1) << 40;
    uint64_t pixels, ids_end, rgb_bytes;
    if (r->magic != EOMT_EDGE_RING_MAGIC || r->abi_version < EOMT_EDGE_ABI_OLDEST || r->abi_version > EOMT_EDGE_ABI_VERSION) return 0;
    if (r->row_bytes < sizeof(eomt_edge_segment) || r->row_bytes > EOMT_EDGE_MAX_ROW_BYTES || r->row_bytes % 8 != 0) return 0;
    if (r->slot_count < EOMT_EDGE_MIN_SLOTS || r->slot_count > EOMT_EDGE_MAX_SLOTS || r->max_segments > EOMT_EDGE_MAX_SEGMENTS)
        return 0;
    if (r->max_width < 1 || r->max_width > EOMT_EDGE_MAX_SIDE || r->max_height < 1 || r->max_height > EOMT_EDGE_MAX_SIDE) return 0;
    if (r->slots_offset > big || r->slot_stride > big || r->table_offset > big || r->ids_offset > big || r->frame_offset > big) return 0;
    if (r->labels_offset > big || r->metadata_offset > big) return 0;
    if (r->labels_bytes > EOMT_EDGE_MAX_TEXT_BYTES || r->metadata_bytes > EOMT_EDGE_MAX_TEXT_BYTES) return 0;
    if ((r->slots_offset | r->slot_stride | r->table_offset | r->ids_offset | r->frame_offset) % 64 != 0) return 0;
    if ((r->labels_offset | r->metadata_offset) % 8 != 0) return 0;
    pixels = (uint64_t)r->max_width * r->max_height;
    ids_end = r->ids_offset + (2 * pixels + 63) / 64 * 64;
    rgb_bytes = (3 * pixels + 63) / 64 * 64;
    if (r->header_bytes < sizeof(eomt_edge_ring_header) || r->labels_offset < r->header_bytes || r->metadata_offset < r->header_bytes)
        return 0;
    if (r->labels_offset + r->labels_bytes > r->slots_offset || r->metadata_offset + r->metadata_bytes > r->slots_offset) return 0;
    if (r->table_offset < eomt_edge_slot_header_bytes_(r)) return 0;
    if (r->ids_offset < r->table_offset + (uint64_t)r->max_segments * r->row_bytes || r->slot_stride < ids_end) return 0;
    if (r->frame_offset != 0 && (r->frame_offset < ids_end || r->slot_stride < r->frame_offset + rgb_bytes)) return 0;
    return r->slots_offset + r->slot_stride * r->slot_count <= bytes;
}

static inline void eomt_edge_close_fd_(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static inline void eomt_edge_close(eomt_edge_subscriber *sub) {
    eomt_edge_close_fd_(&sub->epoll_fd);
    eomt_edge_close_fd_(&sub->event_fd);
    eomt_edge_close_fd_(&sub->socket_fd);
    if (sub->map != NULL) munmap((void *)(uintptr_t)sub->map, sub->ring.total_bytes);
    sub->map = NULL;
    free(sub->text);
    free(sub->labels);
    sub->text = NULL;
    sub->labels = NULL;
    sub->label_count = 0;
}

#define EOMT_EDGE_FDS_MAX_ 253 /* of one message, says Linux: all that arrive are seen and closed */

/* What came with the hello. */
typedef struct eomt_edge_greeting_ {
    eomt_edge_hello hello;
    ssize_t bytes;
    int fds[2];    /* memfd and event, -1 where none came */
    size_t count;  /* of all descriptors that came */
    int cut, lost; /* the message was longer; descriptors were sent that did not get here */
} eomt_edge_greeting_;

/* Receives the hello, without waiting. Descriptors beyond the second are closed. 0, or -1 and errno. */
static inline int eomt_edge_receive_(int socket_fd, eomt_edge_greeting_ *got) {
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(EOMT_EDGE_FDS_MAX_ * sizeof(int))];
    } control;
    struct iovec part;
    struct msghdr message;
    struct cmsghdr *extra;
    memset(&message, 0, sizeof message);
    memset(&control, 0, sizeof control);
    memset(got, 0, sizeof *got);
    got->fds[0] = got->fds[1] = -1;
    part.iov_base = &got->hello;
    part.iov_len = sizeof got->hello;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    got->bytes = recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got->bytes < 0) return -1;
    for (extra = CMSG_FIRSTHDR(&message); extra != NULL; extra = CMSG_NXTHDR(&message, extra)) {
        size_t i, count = (extra->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (extra->cmsg_level != SOL_SOCKET || extra->cmsg_type != SCM_RIGHTS) continue;
        for (i = 0; i < count; i++, got->count++) {
            int fd;
            memcpy(&fd, CMSG_DATA(extra) + i * sizeof(int), sizeof fd);
            if (got->count < 2)
                got->fds[got->count] = fd;
            else
                close(fd);
        }
    }
    got->cut = (message.msg_flags & MSG_TRUNC) != 0;
    got->lost = (message.msg_flags & MSG_CTRUNC) != 0;
    return 0;
}

/* Copies labels and metadata, whose memory the daemon could change while a program reads it. */
static inline int eomt_edge_copy_text_(eomt_edge_subscriber *sub) {
    size_t at, labels = (size_t)sub->ring.labels_bytes, metadata = (size_t)sub->ring.metadata_bytes, start = 0;
    sub->text = (char *)malloc(labels + metadata + 1);
    if (sub->text == NULL) return -1;
    eomt_edge_copy_(sub->text, sub->map + sub->ring.labels_offset, labels);
    eomt_edge_copy_(sub->text + labels, sub->map + sub->ring.metadata_offset, metadata);
    sub->text[labels + metadata] = '\0';
    for (at = 0; at < labels; at++) sub->label_count += sub->text[at] == '\0';
    if (sub->label_count > 65536) sub->label_count = 65536; /* as many classes as a row can name */
    sub->labels = (const char **)malloc((sub->label_count + 1) * sizeof *sub->labels);
    if (sub->labels == NULL) return -1;
    for (at = 0; at < sub->label_count; at++) {
        sub->labels[at] = sub->text + start;
        start += strlen(sub->text + start) + 1;
    }
    return 0;
}

/* Maps the ring; the caller keeps the descriptor. */
static inline int eomt_edge_map_(eomt_edge_subscriber *sub, int memfd, uint64_t bytes) {
    struct stat stat;
    struct statfs system;
    void *map;
    int seals = fcntl(memfd, F_GET_SEALS);
    if (bytes > EOMT_EDGE_MAX_RING_BYTES) return eomt_edge_fail_(sub, "the hello announces more than the 4 GiB that a ring may have", "");
    if (seals < 0) return eomt_edge_fail_(sub, "the descriptor is not a sealable memfd", "");
    if ((seals & F_SEAL_SHRINK) == 0) return eomt_edge_fail_(sub, "the memfd is not sealed against shrinking", "");
    /* TMPFS_MAGIC; pages of other kinds can be taken away, sealed or not */
    if (fstatfs(memfd, &system) != 0 || (uint32_t)system.f_type != UINT32_C(0x01021994))
        return eomt_edge_fail_(sub, "the memfd does not have ordinary pages", "");
    if (fstat(memfd, &stat) != 0 || stat.st_size < 0 || (uint64_t)stat.st_size != bytes || bytes < sizeof(eomt_edge_ring_header) ||
        bytes % 8 != 0)
        return eomt_edge_fail_(sub, "the memfd has another size than announced", "");
    map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, memfd, 0);
    if (map == MAP_FAILED) return eomt_edge_fail_(sub, "mmap failed", strerror(errno));
    eomt_edge_copy_(&sub->ring, (const uint8_t *)map, sizeof sub->ring);
    if (sub->ring.abi_version == 1) sub->ring.row_bytes = sizeof(eomt_edge_segment); /* reserved there */
    if (sub->ring.total_bytes != bytes || !eomt_edge_ring_is_sound_(&sub->ring, bytes)) {
        munmap(map, bytes);
        return eomt_edge_fail_(sub, "the ring's header makes no sense to this client", "");
    }
    sub->map = (const uint8_t *)map;
    return eomt_edge_copy_text_(sub) == 0 ? 0 : eomt_edge_fail_(sub, "out of memory for the labels", "");
}

/* Looks at what the daemon sent as its event, and makes it non-blocking; the daemon's own is so already. */
static inline int eomt_edge_adopt_event_(eomt_edge_subscriber *sub) {
    struct stat stat;
    int flags = fcntl(sub->event_fd, F_GETFL);
    if (flags < 0 || fstat(sub->event_fd, &stat) != 0) return eomt_edge_fail_(sub, "the event descriptor cannot be used", strerror(errno));
    /* a timer and an eventfd belong to no file system and have no type */
    if ((stat.st_mode & S_IFMT) != 0 && !S_ISFIFO(stat.st_mode))
        return eomt_edge_fail_(sub, "the event descriptor is neither a timer, an eventfd nor a pipe", "");
    if ((flags & O_ACCMODE) == O_WRONLY || (flags & O_PATH) != 0) return eomt_edge_fail_(sub, "the event descriptor cannot be read", "");
    if (fcntl(sub->event_fd, F_SETFL, flags | O_NONBLOCK) != 0) return eomt_edge_fail_(sub, "fcntl failed", strerror(errno));
    return 0;
}

/* Takes what is there, so that the descriptor is readable again only after the next wake-up. Never blocks, whatever another holder
 * did to the descriptor's flags. One that hung up tells nothing any more: the socket does. */
static inline void eomt_edge_drain_(eomt_edge_subscriber *sub) {
    char bytes[64];
    ssize_t count = -1;
    int asked = 0;
    if (sub->event_fd < 0) return;
#ifdef RWF_NOWAIT
    {
        struct iovec part;
        part.iov_base = bytes;
        part.iov_len = sizeof bytes;
        count = preadv2(sub->event_fd, &part, 1, -1, RWF_NOWAIT);
        asked = count >= 0 || errno == EAGAIN || errno == EINTR;
    }
#endif
    if (!asked) { /* a kernel before 6.5 does not know it for pipes */
        struct pollfd ready;
        ready.fd = sub->event_fd;
        ready.events = POLLIN;
        if (poll(&ready, 1, 0) <= 0) return;
        count = (ready.revents & POLLIN) != 0 ? read(sub->event_fd, bytes, sizeof bytes) : 0;
    }
    if (count == 0) {
        epoll_ctl(sub->epoll_fd, EPOLL_CTL_DEL, sub->event_fd, NULL); /* the daemon may hold it too, then closing is not enough */
        eomt_edge_close_fd_(&sub->event_fd);
    }
}

static inline int eomt_edge_watch_(eomt_edge_subscriber *sub) {
    struct epoll_event interest;
    memset(&interest, 0, sizeof interest);
    interest.events = EPOLLIN | EPOLLRDHUP;
    sub->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (sub->epoll_fd < 0 || epoll_ctl(sub->epoll_fd, EPOLL_CTL_ADD, sub->event_fd, &interest) != 0) return -1;
    return epoll_ctl(sub->epoll_fd, EPOLL_CTL_ADD, sub->socket_fd, &interest);
}

/* Checks the hello, maps the ring. */
static inline int eomt_edge_greet_(eomt_edge_subscriber *sub, const eomt_edge_greeting_ *got) {
    const eomt_edge_hello *hello = &got->hello;
    char text[sizeof hello->message + 1];
    if (got->bytes == 0) {
        eomt_edge_fail_(sub, "the daemon hung up before its hello", "");
        return EOMT_EDGE_AGAIN_;
    }
    if (got->bytes < 16 || hello->magic != EOMT_EDGE_HELLO_MAGIC)
        return eomt_edge_fail_(sub, "this is not a mask socket: what it says does not begin as a hello of eomt-edge", "");
    if (hello->abi_version < EOMT_EDGE_ABI_OLDEST || hello->abi_version > EOMT_EDGE_ABI_VERSION) {
        snprintf(text, sizeof text, "%u, this client %u to %u", hello->abi_version, EOMT_EDGE_ABI_OLDEST, EOMT_EDGE_ABI_VERSION);
        return eomt_edge_fail_(sub, "the daemon speaks another ABI of the mask ring", text);
    }
    if (got->cut || got->bytes != (ssize_t)sizeof *hello) return eomt_edge_fail_(sub, "this is not a mask socket: its hello has a wrong length", "");
    if (hello->status != EOMT_EDGE_HELLO_OK) {
        memcpy(text, hello->message, sizeof hello->message);
        text[sizeof hello->message] = '\0';
        eomt_edge_fail_(sub, "the daemon refused this client", text);
        return EOMT_EDGE_AGAIN_;
    }
    if (got->lost)
        return eomt_edge_fail_(sub, "the ring's descriptors did not arrive: this process has no free descriptor (see ulimit -n), or a "
                                    "security module (SELinux, AppArmor) forbids it to receive them", "");
    if (got->count != 2) {
        snprintf(text, sizeof text, "%u", (unsigned)got->count);
        return eomt_edge_fail_(sub, "this is not a mask socket: the hello came with another number of descriptors than two", text);
    }
    if (eomt_edge_map_(sub, got->fds[0], hello->ring_bytes) != 0 || eomt_edge_adopt_event_(sub) != 0) return EOMT_EDGE_ERROR;
    return eomt_edge_watch_(sub) == 0 ? 0 : eomt_edge_fail_(sub, "epoll failed", strerror(errno));
}

/* Connects and waits for something to receive. A Unix socket whose queue is full says EAGAIN, and nothing tells when there is room. */
static inline int eomt_edge_knock_(eomt_edge_subscriber *sub, const struct sockaddr_un *address, int64_t deadline) {
    struct pollfd wait;
    int ready;
    sub->socket_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (sub->socket_fd < 0) return eomt_edge_fail_(sub, "no socket", strerror(errno));
    while (connect(sub->socket_fd, (const struct sockaddr *)(const void *)address, sizeof *address) != 0) {
        int error = errno, left = eomt_edge_left_(deadline);
        if (error != EAGAIN && error != EINTR) {
            eomt_edge_fail_(sub, "cannot connect", strerror(error));
            return error == ENOENT || error == ECONNREFUSED ? EOMT_EDGE_AGAIN_ : EOMT_EDGE_ERROR;
        }
        if (left == 0) return eomt_edge_fail_(sub, "cannot connect", "it does not accept: its queue is full (the daemon hangs, or another program listens there)");
        poll(NULL, 0, left < 0 || left > 5 ? 5 : left);
    }
    wait.fd = sub->socket_fd;
    wait.events = POLLIN;
    do {
        int left = eomt_edge_left_(deadline);
        ready = poll(&wait, 1, left);
        if (ready < 0 && errno != EINTR) return eomt_edge_fail_(sub, "poll failed", strerror(errno));
        if (ready == 0 && left == 0) return eomt_edge_fail_(sub, "no hello came in time", "the daemon hangs, or another program listens there");
    } while (ready <= 0);
    return 0;
}

/* One attempt; 0, EOMT_EDGE_ERROR or EOMT_EDGE_AGAIN_. */
static inline int eomt_edge_attempt_(eomt_edge_subscriber *sub, const char *path, int64_t deadline) {
    struct sockaddr_un address;
    eomt_edge_greeting_ got;
    int result;
    memset(sub, 0, sizeof *sub);
    memset(&address, 0, sizeof address);
    sub->socket_fd = sub->event_fd = sub->epoll_fd = -1;
    snprintf(sub->path, sizeof sub->path, "%s", path);
    if (strlen(path) >= sizeof address.sun_path) return eomt_edge_fail_(sub, "the path is too long", "");
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path, strlen(path) + 1);
    result = eomt_edge_knock_(sub, &address, deadline);
    if (result == 0 && eomt_edge_receive_(sub->socket_fd, &got) != 0) {
        eomt_edge_fail_(sub, "the daemon hung up before its hello", strerror(errno));
        result = EOMT_EDGE_AGAIN_;
    } else if (result == 0) {
        sub->event_fd = got.fds[1];
        sub->generation = got.hello.generation;
        result = eomt_edge_greet_(sub, &got);
        eomt_edge_close_fd_(&got.fds[0]);
    }
    if (result != 0) eomt_edge_close(sub);
    return result;
}

static inline int64_t eomt_edge_deadline_(int timeout_ms) { return timeout_ms < 0 ? -1 : eomt_edge_now_ms() + timeout_ms; }

static inline int eomt_edge_connect_within(eomt_edge_subscriber *sub, const char *path, int timeout_ms) {
    return eomt_edge_attempt_(sub, path, eomt_edge_deadline_(timeout_ms)) == 0 ? 0 : EOMT_EDGE_ERROR;
}

static inline int eomt_edge_connect(eomt_edge_subscriber *sub, const char *path) { return eomt_edge_connect_within(sub, path, 5000); }

static inline int eomt_edge_connect_retry(eomt_edge_subscriber *sub, const char *path, int timeout_ms) {
    int64_t deadline = eomt_edge_deadline_(timeout_ms);
    for (;;) {
        int left, result = eomt_edge_attempt_(sub, path, deadline);
        if (result != EOMT_EDGE_AGAIN_) return result;
        left = eomt_edge_left_(deadline);
        if (left == 0) return EOMT_EDGE_ERROR;
        poll(NULL, 0, left < 0 || left > 50 ? 50 : left);
    }
}

static inline int eomt_edge_grow_(void **buffer, size_t *room, size_t bytes) {
    void *larger;
    if (bytes <= *room) return 0;
    larger = realloc(*buffer, bytes);
    if (larger == NULL) return -1;
    *buffer = larger;
    *room = bytes;
    return 0;
}

/* Says of a slot of ABI 1 what one of ABI 2 says itself. The size was checked. */
static inline void eomt_edge_complete_(eomt_edge_slot_info *info) {
    info->stamp_ns = info->dropped_busy = 0; /* reserved words there */
    if ((info->flags & EOMT_EDGE_HAS_FRAME) == 0) return;
    info->frame_format = EOMT_EDGE_RGB24;
    info->frame_stride = 3 * info->width;
    info->frame_bytes = 3 * info->width * info->height;
}

/* Whether the camera frame lies in its area and has the bytes that its format gives it: programs index it by its size. */
static inline int eomt_edge_picture_fits_(const eomt_edge_ring_info *ring, const eomt_edge_slot_info *info) {
    static const char known[] = "RGB3BGR3XB24BX24XR24RX24RGBPY16 YUYVUYVYYVYUVYUYGREYNV12NV21YU12NV16NV61NV24NV42MJPG";
    uint64_t width = info->width, height = info->height, half = (width + 1) / 2, stride = width, bytes;
    size_t at = 0;
    if ((info->flags & EOMT_EDGE_HAS_FRAME) == 0) return info->frame_bytes == 0;
    if (info->frame_bytes > ring->slot_stride - ring->frame_offset) return 0;
    while (at < sizeof known / 4 && info->frame_format != EOMT_EDGE_FOURCC((uint8_t)known[4 * at], (uint8_t)known[4 * at + 1],
                                                                           (uint8_t)known[4 * at + 2], (uint8_t)known[4 * at + 3]))
        at++;
    if (at == 20) return info->frame_stride == 0; /* compressed */
    if (at > 20) return 1;                        /* of a later daemon */
    if (at < 12) stride = at < 2 ? 3 * width : at < 6 ? 4 * width : at < 8 ? 2 * width : 4 * half;
    bytes = stride * height;
    if (at >= 13) bytes += at < 16 ? 2 * half * ((height + 1) / 2) : at < 18 ? 2 * half * height : 2 * width * height;
    return info->frame_stride == stride && info->frame_bytes == bytes;
}

/* Copies a slot whose seqlock was even; 0, -1 (the slot makes no sense), -2 (out of memory). What it makes of a slot that is
 * being overwritten is discarded by the caller, so it only has to stay inside the buffers. */
static inline int eomt_edge_copy_slot_(const eomt_edge_subscriber *sub, const uint8_t *slot, uint64_t sequence, eomt_edge_frame *frame) {
    eomt_edge_slot_header header;
    const eomt_edge_slot_info *info = &header.info;
    const eomt_edge_ring_info *ring = &sub->ring;
    size_t pixels, rows, row;
    void *segments = frame->segments, *ids = frame->ids, *picture = frame->picture_buffer;
    int grown;
    memset(&header, 0, sizeof header);
    eomt_edge_copy_(&header, slot, eomt_edge_slot_header_bytes_(ring));
    if (header.magic != EOMT_EDGE_SLOT_MAGIC || header.abi_version != ring->abi_version || info->sequence != sequence) return -1;
    if (info->width < 1 || info->width > sub->ring.max_width || info->height < 1 || info->height > sub->ring.max_height) return -1;
    if (info->segment_count > sub->ring.max_segments || ((info->flags & EOMT_EDGE_HAS_FRAME) != 0 && sub->ring.frame_offset == 0))
        return -1;
    if (ring->abi_version == 1) eomt_edge_complete_(&header.info);
    if (!eomt_edge_picture_fits_(ring, info)) return -1;
    pixels = (size_t)info->width * info->height;
    rows = info->segment_count * sizeof(eomt_edge_segment);
    grown = eomt_edge_grow_(&segments, &frame->segments_room, rows) == 0 && eomt_edge_grow_(&ids, &frame->ids_room, 2 * pixels) == 0 &&
            eomt_edge_grow_(&picture, &frame->picture_room, info->frame_bytes) == 0;
    frame->segments = (eomt_edge_segment *)segments;
    frame->ids = (uint16_t *)ids;
    frame->picture_buffer = (uint8_t *)picture;
    if (!grown) return -2;
    frame->info = *info;
    frame->picture = (info->flags & EOMT_EDGE_HAS_FRAME) != 0 ? frame->picture_buffer : NULL;
    frame->rgb = info->frame_format == EOMT_EDGE_RGB24 ? frame->picture : NULL;
    for (row = 0; row < info->segment_count; row++) /* a later daemon's rows may have more columns */
        eomt_edge_copy_(&frame->segments[row], slot + ring->table_offset + row * ring->row_bytes, sizeof(eomt_edge_segment));
    eomt_edge_copy_(frame->ids, slot + ring->ids_offset, 2 * pixels);
    eomt_edge_copy_(frame->picture_buffer, slot + ring->frame_offset, info->frame_bytes);
    return 0;
}

/* Whether each row describes something that the frame can hold: programs index the id map by its box. */
static inline int eomt_edge_rows_are_sound_(const eomt_edge_frame *frame) {
    uint64_t width = frame->info.width, height = frame->info.height;
    uint32_t i;
    for (i = 0; i < frame->info.segment_count; i++) {
        const eomt_edge_segment *row = &frame->segments[i];
        int is_number = row->score - row->score == 0; /* neither NaN nor infinite, without <math.h> */
        if ((uint64_t)row->bbox[0] + row->bbox[2] > width || (uint64_t)row->bbox[1] + row->bbox[3] > height) return 0;
        if (row->area > width * height || row->id == 0 || !is_number) return 0;
    }
    return 1;
}

/* The reading half of the seqlock; crates/client/src/seqlock.rs explains the order. */
static inline int eomt_edge_copy_newest_(eomt_edge_subscriber *sub, eomt_edge_frame *frame, int64_t deadline) {
    int attempt;
    eomt_edge_drain_(sub);
    for (attempt = 0; attempt < 1000; attempt++) {
        const uint8_t *slot;
        int copied;
        uint64_t sequence = eomt_edge_load_(sub->map + offsetof(eomt_edge_ring_header, latest));
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (sequence <= sub->last) return EOMT_EDGE_NOTHING;
        slot = sub->map + sub->ring.slots_offset + sequence % sub->ring.slot_count * sub->ring.slot_stride;
        if (eomt_edge_load_(slot + offsetof(eomt_edge_slot_header, lock)) == 2 * sequence) {
            __atomic_thread_fence(__ATOMIC_ACQUIRE);
            copied = eomt_edge_copy_slot_(sub, slot, sequence, frame);
            __atomic_thread_fence(__ATOMIC_ACQUIRE);
            if (copied == -2) return eomt_edge_fail_(sub, "out of memory for a frame", "");
            if (eomt_edge_load_(slot + offsetof(eomt_edge_slot_header, lock)) == 2 * sequence) {
                if (copied != 0) return eomt_edge_fail_(sub, "a slot of the ring makes no sense", "");
                if (!eomt_edge_rows_are_sound_(frame))
                    return eomt_edge_fail_(sub, "a segment lies outside of its frame, has no id, or a score that is no number", "");
                if (sub->last != 0) sub->skipped += sequence - sub->last - 1;
                sub->last = sequence;
                return EOMT_EDGE_FRAME;
            }
        }
        sub->retries++;
        if (eomt_edge_left_(deadline) == 0) break;
    }
    return EOMT_EDGE_NOTHING;
}

static inline int eomt_edge_latest(eomt_edge_subscriber *sub, eomt_edge_frame *frame) { return eomt_edge_copy_newest_(sub, frame, -1); }

static inline int eomt_edge_closed_(const eomt_edge_subscriber *sub) {
    const void *at = sub->map + offsetof(eomt_edge_ring_header, closed);
    uint32_t closed = __atomic_load_n((const uint32_t *)at, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return closed != 0;
}

static inline int eomt_edge_next(eomt_edge_subscriber *sub, eomt_edge_frame *frame, int timeout_ms) {
    int64_t deadline = eomt_edge_deadline_(timeout_ms);
    int vain = 0;
    for (;;) {
        struct pollfd wait[2];
        int left, result, ended, pause = 1000; /* the ring is looked at once a second even if no event comes */
        wait[0].fd = sub->socket_fd;
        wait[0].events = POLLIN | POLLRDHUP;
        wait[1].events = POLLIN;
        /* The order matters: asking for the end first and for a frame second cannot miss the last frame. After the hello the
         * server sends nothing: a readable socket means end of file. */
        ended = eomt_edge_closed_(sub) || poll(wait, 1, 0) > 0;
        result = eomt_edge_copy_newest_(sub, frame, deadline);
        if (result != EOMT_EDGE_NOTHING) return result;
        if (ended) {
            sub->ended_cleanly = eomt_edge_closed_(sub);
            eomt_edge_fail_(sub, sub->ended_cleanly ? "the daemon closed this mask ring" : "the daemon has ended", "");
            return EOMT_EDGE_ENDED;
        }
        left = eomt_edge_left_(deadline);
        if (left == 0) return EOMT_EDGE_NOTHING;
        /* An event that is readable time and again and brings nothing is not asked any more; poll passes over -1. */
        wait[1].fd = vain < 8 ? sub->event_fd : -1;
        wait[1].revents = 0;
        if (vain >= 8) pause = 10;
        if (poll(wait, 2, left < 0 || left > pause ? pause : left) < 0 && errno != EINTR)
            return eomt_edge_fail_(sub, "poll failed", strerror(errno));
        vain += wait[1].revents != 0;
    }
}

static inline int eomt_edge_fd(const eomt_edge_subscriber *sub) { return sub->epoll_fd; }

static inline const char *eomt_edge_label(const eomt_edge_subscriber *sub, unsigned class_index) {
    return class_index < sub->label_count ? sub->labels[class_index] : NULL;
}

static inline const char *eomt_edge_metadata(const eomt_edge_subscriber *sub, size_t *bytes) {
    *bytes = (size_t)sub->ring.metadata_bytes;
    return sub->text + sub->ring.labels_bytes;
}

static inline uint32_t eomt_edge_crc32(uint32_t crc, const void *bytes, size_t count) {
    const uint8_t *at = (const uint8_t *)bytes;
    uint32_t table[16], state = ~crc, i, bit;
    for (i = 0; i < 16; i++) {
        table[i] = i;
        for (bit = 0; bit < 4; bit++) table[i] = (table[i] & 1) != 0 ? table[i] >> 1 ^ UINT32_C(0xedb88320) : table[i] >> 1;
    }
    for (; count > 0; count--, at++) {
        state ^= *at;
        state = state >> 4 ^ table[state & 15];
        state = state >> 4 ^ table[state & 15];
    }
    return ~state;
}

static inline int eomt_edge_checksum_ok(const eomt_edge_frame *frame) {
    size_t pixels = (size_t)frame->info.width * frame->info.height;
    uint32_t crc = eomt_edge_crc32(0, frame->segments, frame->info.segment_count * sizeof(eomt_edge_segment));
    if ((frame->info.flags & EOMT_EDGE_HAS_CHECKSUM) == 0) return -1;
    crc = eomt_edge_crc32(crc, frame->ids, 2 * pixels);
    if (frame->picture != NULL) crc = eomt_edge_crc32(crc, frame->picture, frame->info.frame_bytes);
    return crc == frame->info.checksum;
}

static inline void eomt_edge_frame_free(eomt_edge_frame *frame) {
    free(frame->segments);
    free(frame->ids);
    free(frame->picture_buffer);
    memset(frame, 0, sizeof *frame);
}

#ifdef __cplusplus
}
#endif
#endif /* EOMT_EDGE_H */
