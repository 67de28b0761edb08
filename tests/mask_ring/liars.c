/* Follows mask sockets: for each line "TIMEOUT_MS PATH" of stdin, two frames, and a line of how that ended:
 * "HELD_BEFORE HELD_AFTER SENTENCE". */
#include "eomt_edge.h"
#include <dirent.h>

/* Descriptors, and a thousand for each mapping of a memfd. */
static int held(void) {
    static char line[512];
    DIR *directory = opendir("/proc/self/fd");
    FILE *maps = fopen("/proc/self/maps", "r");
    int count = 0;
    while (readdir(directory) != NULL) count++;
    while (fgets(line, sizeof line, maps) != NULL) count += strstr(line, "memfd:") != NULL ? 1000 : 0;
    closedir(directory);
    fclose(maps);
    return count;
}

int main(void) {
    static char line[512];
    while (fgets(line, sizeof line, stdin) != NULL) {
        eomt_edge_frame frame = EOMT_EDGE_FRAME_INIT;
        eomt_edge_subscriber sub;
        int before = held(), frames, result = EOMT_EDGE_FRAME, timeout_ms = atoi(line);
        char *path = strchr(line, ' ') + 1;
        path[strcspn(path, "\n")] = '\0';
        if (eomt_edge_connect_within(&sub, path, timeout_ms) == 0) {
            size_t bytes, i;
            unsigned sum = 0;
            const char *metadata = eomt_edge_metadata(&sub, &bytes);
            for (i = 0; i < bytes; i++) sum += (unsigned char)metadata[i];
            for (frames = 0; frames < 2 && result == EOMT_EDGE_FRAME; frames++) {
                result = eomt_edge_next(&sub, &frame, timeout_ms);
                if (result != EOMT_EDGE_FRAME) break;
                for (i = 0; i < frame.info.segment_count; i++) {
                    const eomt_edge_segment *row = &frame.segments[i];
                    const char *label = eomt_edge_label(&sub, row->class_index);
                    uint32_t x, y;
                    /* a program that trusts the box */
                    for (y = row->bbox[1]; y < row->bbox[1] + row->bbox[3]; y++)
                        for (x = row->bbox[0]; x < row->bbox[0] + row->bbox[2]; x++) sum += frame.ids[y * frame.info.width + x];
                    sum += label == NULL ? 0 : (unsigned)strlen(label);
                }
            }
            if (result == EOMT_EDGE_NOTHING) snprintf(sub.error, sizeof sub.error, "%s: no frame (%u)", path, sum);
            eomt_edge_close(&sub);
        }
        eomt_edge_frame_free(&frame);
        printf("%d %d %s\n", before, held(), sub.error);
        fflush(stdout);
    }
    return 0;
}
