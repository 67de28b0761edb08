/* Prints what an eomt-edge daemon publishes, a line per frame: subscriber [--socket PATH] [--frames N] [--timeout SECONDS] [--json].
 * The timeout is for connecting, hello and first frame together, and then for each frame; without it, a frame is waited for for ever. */
#include "eomt_edge.h"

static void print_text(const eomt_edge_subscriber *sub, const eomt_edge_frame *frame) {
    char plain[64];
    uint32_t i;
    printf("%llu: %ux%u, %u segments:", (unsigned long long)frame->info.sequence, frame->info.width, frame->info.height,
           frame->info.segment_count);
    for (i = 0; i < frame->info.segment_count; i++) {
        const eomt_edge_segment *segment = &frame->segments[i];
        const char *label = eomt_edge_label(sub, segment->class_index);
        printf("%s %s %.2f", i > 0 ? "," : "", label != NULL ? eomt_edge_plain(plain, sizeof plain, label) : "?", segment->score);
    }
    putchar('\n');
}

static void print_json_text(const char *text) {
    putchar('"');
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte < 0x20)
            printf("\\u%04x", byte);
        else if (byte == '"' || byte == '\\')
            printf("\\%c", byte);
        else
            putchar(byte);
    }
    putchar('"');
}

/* The four letters of a V4L2 pixel format, without the spaces at their end. */
static void print_format(const eomt_edge_frame *frame) {
    char letters[5] = {0};
    int at, count = 4;
    if (frame->picture == NULL) {
        printf("null");
        return;
    }
    for (at = 0; at < 4; at++) letters[at] = (char)(frame->info.frame_format >> 8 * at & 0xff);
    while (count > 0 && letters[count - 1] == ' ') letters[--count] = '\0';
    for (at = 0; at < count; at++)
        if (letters[at] <= ' ' || letters[at] > '~') letters[at] = '?';
    print_json_text(letters);
}

static const char *truth(uint32_t value) { return value != 0 ? "true" : "false"; }

static void print_json(const eomt_edge_subscriber *sub, const eomt_edge_frame *frame) {
    const eomt_edge_slot_info *info = &frame->info;
    size_t pixels = (size_t)info->width * info->height;
    int checksum_ok = eomt_edge_checksum_ok(frame);
    uint32_t i;
    printf("{\"sequence\": %llu, \"frame_sequence\": %llu, \"captured_ns\": %llu, \"published_ns\": %llu, \"dropped\": %llu, ",
           (unsigned long long)info->sequence, (unsigned long long)info->frame_sequence, (unsigned long long)info->captured_ns,
           (unsigned long long)info->published_ns, (unsigned long long)info->dropped);
    printf("\"stamp_ns\": %llu, \"dropped_busy\": %llu, \"dropped_source\": %llu, \"dropped_corrupt\": %llu, \"failed\": %llu, ",
           (unsigned long long)info->stamp_ns, (unsigned long long)info->dropped_busy, (unsigned long long)info->dropped_source,
           (unsigned long long)info->dropped_corrupt, (unsigned long long)info->failed);
    printf("\"frame_format\": ");
    print_format(frame);
    printf(", \"frame_stride\": %u, \"frame_bytes\": %u, ", info->frame_stride, info->frame_bytes);
    printf("\"width\": %u, \"height\": %u, \"source_id\": %u, \"stale\": %s, \"no_signal\": %s, \"truncated\": %s, ", info->width,
           info->height, info->source_id, truth(info->flags & EOMT_EDGE_STALE), truth(info->flags & EOMT_EDGE_NO_SIGNAL),
           truth(info->flags & EOMT_EDGE_TRUNCATED));
    printf("\"stage_us\": [%u, %u, %u, %u], \"model_hash\": \"", info->stage_us[0], info->stage_us[1], info->stage_us[2],
           info->stage_us[3]);
    for (i = 0; i < sizeof info->model_hash; i++) printf("%02x", info->model_hash[i]);
    printf("\", \"ids_crc32\": %u, \"frame_crc32\": ", eomt_edge_crc32(0, frame->ids, 2 * pixels));
    if (frame->picture != NULL)
        printf("%u", eomt_edge_crc32(0, frame->picture, info->frame_bytes));
    else
        printf("null");
    printf(", \"checksum_ok\": %s, \"skipped\": %llu, \"segments\": [", checksum_ok < 0 ? "null" : truth((uint32_t)checksum_ok),
           (unsigned long long)sub->skipped);
    for (i = 0; i < info->segment_count; i++) {
        const eomt_edge_segment *s = &frame->segments[i];
        const char *label = eomt_edge_label(sub, s->class_index);
        printf("%s{\"id\": %u, \"category_id\": %u, \"label\": ", i > 0 ? ", " : "", s->id, s->class_index);
        if (label != NULL)
            print_json_text(label);
        else
            printf("null");
        printf(", \"score\": %.9g, \"area\": %u, \"bbox\": [%u, %u, %u, %u], \"track_id\": %u}", s->score, s->area, s->bbox[0],
               s->bbox[1], s->bbox[2], s->bbox[3], s->track_id);
    }
    printf("]}\n");
}

int main(int argc, char **argv) {
    const char *path = "/run/eomt-edge/masks.sock";
    long long frames = -1;
    int json = 0, result = EOMT_EDGE_FRAME, timeout_ms = -1, left, i;
    int64_t start = eomt_edge_now_ms();
    eomt_edge_subscriber sub;
    eomt_edge_frame frame = EOMT_EDGE_FRAME_INIT;
    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            json = 1;
        } else if (strcmp(argv[i], "--socket") == 0 && i + 1 < argc) {
            path = argv[++i];
        } else if (strcmp(argv[i], "--frames") == 0 && i + 1 < argc) {
            frames = atoll(argv[++i]);
        } else if (strcmp(argv[i], "--timeout") == 0 && i + 1 < argc) {
            timeout_ms = (int)(1000 * atof(argv[++i]));
        } else {
            fprintf(stderr, "usage: %s [--socket PATH] [--frames N] [--timeout SECONDS] [--json]\n", argv[0]);
            return 2;
        }
    }
    if ((timeout_ms < 0 ? eomt_edge_connect(&sub, path) : eomt_edge_connect_within(&sub, path, timeout_ms)) != 0) {
        fprintf(stderr, "%s\n", sub.error);
        return 1;
    }
    for (left = timeout_ms < 0 ? -1 : timeout_ms - (int)(eomt_edge_now_ms() - start); frames != 0; frames--, left = timeout_ms) {
        result = eomt_edge_next(&sub, &frame, timeout_ms >= 0 && left < 0 ? 0 : left);
        if (result != EOMT_EDGE_FRAME) break;
        if (json)
            print_json(&sub, &frame);
        else
            print_text(&sub, &frame);
        if (fflush(stdout) != 0) break;
    }
    if (result == EOMT_EDGE_NOTHING) fprintf(stderr, "mask socket %s: no frame came in time\n", path);
    if (result == EOMT_EDGE_ERROR || result == EOMT_EDGE_ENDED) fprintf(stderr, "%s\n", sub.error);
    eomt_edge_frame_free(&frame);
    eomt_edge_close(&sub);
    return result == EOMT_EDGE_FRAME ? 0 : 1;
}
