/* The floor of benchmarks/: a network namespace put on a bridge by raw netlink, in as few system calls as there can be.
 *
 * Reads `attach N`, `port N PORT` (attach with a published port), `detach N` and `ports FIRST COUNT` (elements alone), a line
 * each; answers each with milliseconds. The bridge br0, the namespaces /run/netns/nsN and the nftables map `ip t ports` exist.
 * Sources: include/uapi/linux/{rtnetlink,if_link,veth,netfilter/nf_tables}.h.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct batch {
    char bytes[65536];
    size_t length;
    int waiting; /* answers that the kernel owes */
};

static void die(const char *what) {
    printf("%s: %s\n", what, strerror(errno));
    exit(1);
}

static void put(struct batch *b, const void *data, size_t length) {
    memcpy(b->bytes + b->length, data, length);
    memset(b->bytes + b->length + length, 0, NLMSG_ALIGN(length) - length);
    b->length += NLMSG_ALIGN(length);
}

static size_t message(struct batch *b, int type, int flags, const void *head, size_t length) {
    struct nlmsghdr h = {.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags};
    size_t at = b->length;
    put(b, &h, sizeof h);
    put(b, head, length);
    b->waiting += (flags & NLM_F_ACK) != 0;
    return at;
}

static void end(struct batch *b, size_t at) { ((struct nlmsghdr *)(b->bytes + at))->nlmsg_len = b->length - at; }

static void attribute(struct batch *b, int type, const void *data, size_t length) {
    struct rtattr a = {.rta_type = type, .rta_len = RTA_LENGTH(length)};
    put(b, &a, sizeof a);
    put(b, data, length);
}

static size_t nest(struct batch *b, int type) {
    size_t at = b->length;
    struct rtattr a = {.rta_type = type | NLA_F_NESTED};
    put(b, &a, sizeof a);
    return at;
}

static void unnest(struct batch *b, size_t at) { ((struct rtattr *)(b->bytes + at))->rta_len = b->length - at; }

static void carry_out(int sock, struct batch *b) {
    char answer[65536];
    if (send(sock, b->bytes, b->length, 0) < 0) die("send");
    while (b->waiting > 0) {
        ssize_t length = recv(sock, answer, sizeof answer, 0);
        if (length < 0) die("recv");
        for (struct nlmsghdr *h = (void *)answer; NLMSG_OK(h, length); h = NLMSG_NEXT(h, length))
            if (h->nlmsg_type == NLMSG_ERROR) {
                errno = -((struct nlmsgerr *)NLMSG_DATA(h))->error;
                if (errno) die("the kernel");
                b->waiting--;
            }
    }
}

static int open_netlink(int protocol) {
    struct sockaddr_nl all = {.nl_family = AF_NETLINK};
    int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), one = 1;
    if (sock < 0 || bind(sock, (void *)&all, sizeof all)) die("socket");
    setsockopt(sock, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
    return sock;
}

static int home, host, rules;
static unsigned bridge;

static void attach(int n) {
    char name[IFNAMSIZ], path[64];
    unsigned char mac[6] = {2, 0, 0, 0, n >> 8, n & 255};
    struct ifinfomsg up = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP}, peer = {0};
    struct batch b = {0};
    snprintf(name, sizeof name, "v%d", n);
    snprintf(path, sizeof path, "/run/netns/ns%d", n);
    int ns = open(path, O_RDONLY | O_CLOEXEC);
    if (ns < 0) die(path);

    size_t at = message(&b, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, &up, sizeof up);
    attribute(&b, IFLA_IFNAME, name, strlen(name) + 1);
    attribute(&b, IFLA_MASTER, &bridge, 4);
    size_t info = nest(&b, IFLA_LINKINFO);
    attribute(&b, IFLA_INFO_KIND, "veth", 4);
    size_t data = nest(&b, IFLA_INFO_DATA), other = nest(&b, VETH_INFO_PEER);
    put(&b, &peer, sizeof peer);
    attribute(&b, IFLA_IFNAME, "eth0", 5);
    attribute(&b, IFLA_ADDRESS, mac, 6);
    attribute(&b, IFLA_NET_NS_FD, &ns, 4);
    unnest(&b, other), unnest(&b, data), unnest(&b, info), end(&b, at);
    carry_out(host, &b);

    if (setns(ns, CLONE_NEWNET)) die("setns");
    int inner = open_netlink(NETLINK_ROUTE);
    unsigned eth0 = if_nametoindex("eth0");
    if (setns(home, CLONE_NEWNET)) die("setns");
    close(ns);

    b = (struct batch){0};
    up.ifi_index = 1;
    end(&b, message(&b, RTM_NEWLINK, NLM_F_ACK, &up, sizeof up));
    struct ifaddrmsg address = {.ifa_family = AF_INET, .ifa_prefixlen = 16, .ifa_index = eth0};
    unsigned char ip[4] = {10, 7, n / 250, n % 250 + 2}, gateway[4] = {10, 7, 0, 1};
    at = message(&b, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, &address, sizeof address);
    attribute(&b, IFA_LOCAL, ip, 4);
    attribute(&b, IFA_ADDRESS, ip, 4);
    end(&b, at);
    up.ifi_index = eth0;
    end(&b, message(&b, RTM_NEWLINK, NLM_F_ACK, &up, sizeof up));
    struct rtmsg route = {.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC, .rtm_type = RTN_UNICAST};
    at = message(&b, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, &route, sizeof route);
    attribute(&b, RTA_GATEWAY, gateway, 4);
    attribute(&b, RTA_OIF, &eth0, 4);
    end(&b, at);
    carry_out(inner, &b);
    close(inner);
}

static void detach(int n) {
    char name[IFNAMSIZ];
    struct ifinfomsg link = {0};
    struct batch b = {0};
    snprintf(name, sizeof name, "v%d", n);
    size_t at = message(&b, RTM_DELLINK, NLM_F_ACK, &link, sizeof link);
    attribute(&b, IFLA_IFNAME, name, strlen(name) + 1);
    end(&b, at);
    carry_out(host, &b);
}

/* COUNT elements { tcp . PORT : ADDRESS . 80 } of the map ip t ports, in one transaction. */
static void publish(int n, int port, int count) {
    struct batch b = {0};
    struct nfgenmsg edge = {.res_id = htons(NFNL_SUBSYS_NFTABLES)}, ip = {.nfgen_family = NFPROTO_IPV4};
    end(&b, message(&b, NFNL_MSG_BATCH_BEGIN, 0, &edge, sizeof edge));
    size_t at = message(&b, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, &ip, sizeof ip);
    attribute(&b, NFTA_SET_ELEM_LIST_TABLE, "t", 2);
    attribute(&b, NFTA_SET_ELEM_LIST_SET, "ports", 6);
    size_t list = nest(&b, NFTA_SET_ELEM_LIST_ELEMENTS);
    for (int i = 0; i < count; i++) {
        unsigned char key[8] = {6, 0, 0, 0, (port + i) >> 8, (port + i) & 255, 0, 0};
        unsigned char to[8] = {10, 7, n / 250, n % 250 + 2, 0, 80, 0, 0};
        size_t element = nest(&b, NFTA_LIST_ELEM), field = nest(&b, NFTA_SET_ELEM_KEY);
        attribute(&b, NFTA_DATA_VALUE, key, sizeof key);
        unnest(&b, field);
        field = nest(&b, NFTA_SET_ELEM_DATA);
        attribute(&b, NFTA_DATA_VALUE, to, sizeof to);
        unnest(&b, field), unnest(&b, element);
    }
    unnest(&b, list), end(&b, at);
    end(&b, message(&b, NFNL_MSG_BATCH_END, 0, &edge, sizeof edge));
    carry_out(rules, &b);
}

int main(void) {
    char line[64];
    home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    host = open_netlink(NETLINK_ROUTE);
    rules = open_netlink(NETLINK_NETFILTER);
    if (!(bridge = if_nametoindex("br0"))) die("br0");
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        struct timespec began, ended;
        int n = 0, port = 0;
        clock_gettime(CLOCK_MONOTONIC, &began);
        if (sscanf(line, "attach %d", &n) == 1)
            attach(n);
        else if (sscanf(line, "port %d %d", &n, &port) == 2)
            attach(n), publish(n, port, 1);
        else if (sscanf(line, "ports %d %d", &port, &n) == 2)
            for (; n > 0; port += 200, n -= 200) publish(0, port, n < 200 ? n : 200);
        else if (sscanf(line, "detach %d", &n) == 1)
            detach(n);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        printf("%.3f\n", (ended.tv_sec - began.tv_sec) * 1e3 + (ended.tv_nsec - began.tv_nsec) / 1e6);
    }
    return 0;
}
