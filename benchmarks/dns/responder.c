/* A name server that does as little as one can: every question is answered with one A record, whatever was asked.
 *
 * usage: responder ADDRESS PORT
 *
 * What it answers in a second is what sockets and the asking program leave room for: the yardstick of the name benchmarks. It
 * is also the server that the others forward to. UDP alone. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const unsigned char record[] = {0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 2, 0x58, 0, 4, 192, 0, 2, 7};

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s ADDRESS PORT\n", argv[0]);
        return 2;
    }
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[2]))};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (inet_pton(AF_INET, argv[1], &here.sin_addr) != 1 || bind(fd, (struct sockaddr *)&here, sizeof here) != 0) {
        perror(argv[1]);
        return 1;
    }
    puts("ready");
    fflush(stdout);
    unsigned char packet[4096];
    for (;;) {
        struct sockaddr_in peer;
        socklen_t length = sizeof peer;
        ssize_t size = recvfrom(fd, packet, sizeof packet, 0, (struct sockaddr *)&peer, &length);
        if (size < 12)
            continue;
        size_t end = 12; /* of the question */
        while (end < (size_t)size && packet[end] != 0)
            end += packet[end] + 1u;
        end += 5;
        if (end > (size_t)size || end + sizeof record > sizeof packet)
            continue;
        packet[2] |= 0x80;                  /* a response */
        packet[3] = 0x80;                   /* recursion available, no error */
        memset(packet + 6, 0, 6);
        packet[7] = 1;                      /* one answer */
        memcpy(packet + end, record, sizeof record);
        sendto(fd, packet, end + sizeof record, 0, (struct sockaddr *)&peer, length);
    }
}
