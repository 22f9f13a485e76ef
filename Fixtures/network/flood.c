// Many packets from many addresses, past this host's own TCP: flood INTERFACE DESTINATION-MAC DESTINATION PORT KIND COUNT
// Sources are 10.99.0.0/16. KIND:
//   syn      SYNs that are never followed up
//   scan     SYNs to every port
//   garbage  packets to the port with random damage in every field, in and out of their own connections
//   crowd    connections that are opened, send the beginning of a request and stay; ends when its input does
// Prints "done N" when N packets are sent, or N connections are open.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct __attribute__((packed)) packet {
    uint8_t version, service;
    uint16_t length, identification, fragment;
    uint8_t hops, protocol;
    uint16_t sum;
    uint32_t source, destination;
    uint16_t source_port, destination_port;
    uint32_t sequence, acknowledgement;
    uint8_t offset, flags;
    uint16_t window, tcp_sum, urgent;
    uint8_t bytes[600];
};

static int s;
static struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_halen = 6, .sll_protocol = 0x0008};
static uint32_t destination;
static uint64_t state = 88172645463325252ull;

static uint32_t any(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 16);
}

static uint16_t sum(const void *start, size_t count, uint32_t more) {
    const uint8_t *p = start;
    uint64_t all = more;
    for (size_t i = 0; i + 1 < count; i += 2) all += (uint32_t)(p[i] << 8 | p[i + 1]);
    if (count & 1) all += (uint32_t)(p[count - 1] << 8);
    while (all >> 16) all = (all & 0xffff) + (all >> 16);
    return htons((uint16_t)~all);
}

static void seal(struct packet *p, size_t content) {
    p->sum = p->tcp_sum = 0;
    p->sum = sum(p, 20, 0);
    p->tcp_sum = sum((const uint8_t *)p + 20, content, 6 + (uint32_t)content + (uint16_t)~ntohs(sum((const uint8_t *)p + 12, 8, 0)));
}

static void finish(struct packet *p, size_t data) {
    p->version = 0x45, p->hops = 64, p->protocol = 6, p->length = htons((uint16_t)(40 + data)), p->destination = destination;
    p->offset = 0x50, p->window = htons(64000);
    seal(p, 20 + data);
}

static void put(const void *bytes, size_t count) {
    while (sendto(s, bytes, count, 0, (struct sockaddr *)&to, sizeof to) < 0 && (errno == ENOBUFS || errno == EAGAIN)) usleep(200);
}

static uint32_t source(uint32_t n) { return htonl(0x0a630000 | (n & 0xffff)); }

int main(int argc, char **argv) {
    if (argc < 7) return 64;
    const char *kind = argv[5];
    uint32_t count = (uint32_t)strtoul(argv[6], NULL, 10);
    uint16_t port = htons((uint16_t)atoi(argv[4]));
    unsigned mac[6];
    if (sscanf(argv[2], "%x:%x:%x:%x:%x:%x", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6) return 64;
    for (int i = 0; i < 6; i++) to.sll_addr[i] = (uint8_t)mac[i];
    to.sll_ifindex = (int)if_nametoindex(argv[1]);
    inet_pton(AF_INET, argv[3], &destination);
    int isCrowd = !strcmp(kind, "crowd"), isScan = !strcmp(kind, "scan"), isGarbage = !strcmp(kind, "garbage");
    s = socket(AF_PACKET, SOCK_DGRAM, isCrowd ? htons(ETH_P_IP) : 0);
    struct sockaddr_ll on = {.sll_family = AF_PACKET, .sll_protocol = isCrowd ? htons(ETH_P_IP) : 0, .sll_ifindex = to.sll_ifindex};
    int room = 64 << 20;
    setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    if (s < 0 || bind(s, (struct sockaddr *)&on, sizeof on)) return perror("flood"), 1;
    struct packet p = {0};
    if (!isCrowd) {
        for (uint32_t i = 0; i < count; i++) {
            memset(&p, 0, sizeof p);
            p.source = source(i * 7), p.source_port = htons((uint16_t)(1024 + i / 65536 + (isGarbage ? any() % 64 : 0)));
            p.destination_port = isScan ? htons((uint16_t)i) : port;
            p.sequence = htonl(any()), p.flags = 2;
            size_t data = 0;
            if (isGarbage) {
                p.sequence = htonl(1000 + any() % 2000), p.acknowledgement = htonl(any()), p.flags = (uint8_t)any();
                data = any() % 3 ? any() % 500 : 0;
                for (size_t j = 0; j < data; j++) p.bytes[j] = (uint8_t)any();
                if (data > 40 && any() % 2) memcpy(p.bytes, "GET /?a=%00%u HTTP/1.1\r\nHost: x\r\n\r\n", 36);
            }
            finish(&p, data);
            size_t length = 40 + data;
            if (isGarbage) {
                uint8_t *raw = (uint8_t *)&p;
                for (uint32_t j = any() % 4; j > 0; j--) {
                    size_t at = any() % 4 ? 20 + any() % (length - 20) : any() % 12;
                    if (at != 22 && at != 23) raw[at] = (uint8_t)any();
                }
                if (any() % 4 == 0) length = any() % length;
                // Half of it has right checksums around its damage, so that it gets far.
                if (any() % 2 && length >= 40) seal(&p, length - 20);
            }
            put(&p, length);
        }
        printf("done %u\n", count);
        return 0;
    }
    static const char request[] = "GET /crowd HTTP/1.1\r\nHost: x\r\nX-Waiting: ";
    static uint8_t open[1 << 17];
    uint32_t sent = 0, opened = 0;
    struct timespec last, now;
    clock_gettime(CLOCK_MONOTONIC, &last);
    while (opened < count) {
        // What was not answered is asked again when nothing has come for a while.
        while (sent < count && sent < opened + 400) {
            if (!open[sent & 0x1ffff]) {
                memset(&p, 0, sizeof p);
                p.source = source(sent), p.source_port = htons((uint16_t)(2000 + (sent >> 16))), p.destination_port = port;
                p.sequence = htonl(sent << 8), p.flags = 2;
                finish(&p, 0);
                put(&p, 40);
            }
            sent++;
        }
        struct pollfd ready = {.fd = s, .events = POLLIN};
        if (poll(&ready, 1, 200) <= 0) {
            sent = 0;
            while (sent < count && open[sent & 0x1ffff]) sent++;
            continue;
        }
        struct packet q;
        ssize_t n = recv(s, &q, sizeof q, MSG_DONTWAIT);
        if (n < 40 || q.protocol != 6 || (q.flags & 0x12) != 0x12 || (ntohl(q.destination) & 0xffff0000) != 0x0a630000) continue;
        uint32_t which = (ntohl(q.destination) & 0xffff) | (uint32_t)(ntohs(q.destination_port) - 2000) << 16;
        if (which >= count) continue;
        memset(&p, 0, sizeof p);
        p.source = q.destination, p.source_port = q.destination_port, p.destination_port = port;
        p.sequence = q.acknowledgement, p.acknowledgement = htonl(ntohl(q.sequence) + 1), p.flags = 0x18;
        memcpy(p.bytes, request, sizeof request - 1);
        finish(&p, sizeof request - 1);
        put(&p, 40 + sizeof request - 1);
        if (!open[which & 0x1ffff]) open[which & 0x1ffff] = 1, opened++;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - last.tv_sec > 240) break;
    }
    printf("done %u\n", opened);
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0) {}
}
