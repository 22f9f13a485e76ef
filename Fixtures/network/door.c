// Whole IP packets into a network and out of it, past this host's own TCP and netfilter: door INTERFACE DESTINATION-MAC ADDRESS...
// Reads lines of hex, one packet each, and sends them. Prints every packet for one of the addresses as a line of hex.
// "sync N" is answered by "sync N" once everything before it is sent. The kernel does not know the addresses: it answers nothing.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static unsigned char packet[70000];
static char line[150000], text[150000];

static int value(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

int main(int argc, char **argv) {
    if (argc < 4) return 64;
    unsigned interface = if_nametoindex(argv[1]);
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)interface, .sll_halen = 6};
    unsigned mac[6];
    if (sscanf(argv[2], "%x:%x:%x:%x:%x:%x", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6) return 64;
    for (int i = 0; i < 6; i++) to.sll_addr[i] = (unsigned char)mac[i];
    int s = socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_ALL));
    struct sockaddr_ll on = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)interface};
    int room = 8 << 20;
    setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    if (s < 0 || bind(s, (struct sockaddr *)&on, sizeof on) != 0) return perror("door"), 1;
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    puts("ready");
    fflush(stdout);
    size_t filled = 0;
    for (;;) {
        struct pollfd ends[2] = {{.fd = 0, .events = POLLIN}, {.fd = s, .events = POLLIN}};
        if (poll(ends, 2, -1) < 0) return 1;
        while (ends[1].revents) {
            struct sockaddr_ll from;
            socklen_t size = sizeof from;
            ssize_t n = recvfrom(s, packet, sizeof packet, MSG_DONTWAIT, (struct sockaddr *)&from, &size);
            if (n <= 0) break;
            if (from.sll_pkttype == PACKET_OUTGOING || n < 20) continue;
            int wanted = 0;
            for (int i = 3; i < argc; i++) {
                unsigned char address[16];
                if (packet[0] >> 4 == 4 && inet_pton(AF_INET, argv[i], address) == 1) wanted |= !memcmp(packet + 16, address, 4);
                if (packet[0] >> 4 == 6 && n >= 40 && inet_pton(AF_INET6, argv[i], address) == 1) wanted |= !memcmp(packet + 24, address, 16);
            }
            if (!wanted) continue;
            for (ssize_t i = 0; i < n; i++) {
                text[2 * i] = "0123456789abcdef"[packet[i] >> 4];
                text[2 * i + 1] = "0123456789abcdef"[packet[i] & 15];
            }
            text[2 * n] = 0;
            puts(text);
        }
        fflush(stdout);
        if (!ends[0].revents) continue;
        ssize_t n = read(0, line + filled, sizeof line - filled - 1);
        if (n <= 0) return 0;
        filled += (size_t)n;
        line[filled] = 0;
        char *at = line, *end;
        for (; (end = strchr(at, '\n')); at = end + 1) {
            *end = 0;
            if (!strncmp(at, "sync", 4)) {
                puts(at);
                fflush(stdout);
                continue;
            }
            size_t count = 0;
            while (value(at[2 * count]) >= 0 && value(at[2 * count + 1]) >= 0) {
                packet[count] = (unsigned char)(value(at[2 * count]) << 4 | value(at[2 * count + 1]));
                count++;
            }
            to.sll_protocol = htons(packet[0] >> 4 == 6 ? ETH_P_IPV6 : ETH_P_IP);
            while (sendto(s, packet, count, 0, (struct sockaddr *)&to, sizeof to) < 0)
                if (errno == ENOBUFS || errno == EAGAIN) usleep(100);
                else { printf("error %s\n", strerror(errno)); break; }
        }
        filled -= (size_t)(at - line);
        memmove(line, at, filled);
    }
}
