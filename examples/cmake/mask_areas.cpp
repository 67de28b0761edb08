// Prints how many pixels of each class the daemon sees, a line per frame: mask_areas [SOCKET [FRAMES]]
#include <eomt_edge.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

// What eomt_edge.h hands out must be given back, whichever way a function ends.
struct Masks {
    eomt_edge_subscriber subscriber;
    eomt_edge_frame frame = EOMT_EDGE_FRAME_INIT;
    bool connected = false;

    explicit Masks(const char *path) { connected = eomt_edge_connect(&subscriber, path) == 0; }
    Masks(const Masks &) = delete;
    Masks &operator=(const Masks &) = delete;
    ~Masks() {
        eomt_edge_frame_free(&frame);
        if (connected) eomt_edge_close(&subscriber);
    }
};

static std::map<std::string, unsigned> areas(const Masks &masks) {
    const eomt_edge_frame &frame = masks.frame;
    std::vector<unsigned> pixels(65536);
    for (size_t at = 0; at < size_t(frame.info.width) * frame.info.height; at++) pixels[frame.ids[at]]++;
    std::map<std::string, unsigned> sums;
    for (uint32_t i = 0; i < frame.info.segment_count; i++) {
        const char *label = eomt_edge_label(&masks.subscriber, frame.segments[i].class_index);
        char plain[64];
        sums[label != nullptr ? eomt_edge_plain(plain, sizeof plain, label) : "?"] += pixels[frame.segments[i].id];
    }
    return sums;
}

int main(int argc, char **argv) {
    Masks masks(argc > 1 ? argv[1] : "/run/eomt-edge/masks.sock");
    long left = argc > 2 ? std::atol(argv[2]) : -1;
    int result = EOMT_EDGE_FRAME;
    while (masks.connected && left-- != 0 && (result = eomt_edge_next(&masks.subscriber, &masks.frame, -1)) == EOMT_EDGE_FRAME) {
        std::printf("%llu:", static_cast<unsigned long long>(masks.frame.info.sequence));
        for (const auto &[label, pixels] : areas(masks)) std::printf(" %s=%u", label.c_str(), pixels);
        std::printf("\n");
        std::fflush(stdout);
    }
    if (masks.connected && result == EOMT_EDGE_FRAME) return 0;
    std::fprintf(stderr, "mask_areas: %s\n", masks.subscriber.error);
    return 1;
}
