/* A hostile build. It runs as root in a guest and tries everything that it must not be able to do.
 * It prints a line for each kind of attack: `attempt TRIED REACHED KIND`. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GATEWAY "169.254.111.222"

static unsigned char packet[70000];
static time_t began;

static void report(int tried, int reached, const char *kind) {
    printf("attempt %d %d %s, after %ld s\n", tried, reached, kind, (long)(time(NULL) - began));
    fflush(stdout);
}

static struct sockaddr_in at(const char *address, int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_aton(address, &to.sin_addr);
    return to;
}

static int udp(int milliseconds) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct timeval wait = {milliseconds / 1000, milliseconds % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    return fd;
}

/* Writes a request and returns its length. A semicolon ends each field of the options. */
static int request(int kind, const char *name, const char *options) {
    int length = 2, n;
    packet[0] = 0;
    packet[1] = kind;
    length += sprintf((char *)packet + length, "%s", name) + 1;
    length += sprintf((char *)packet + length, "octet") + 1;
    for (n = 0; options[n]; n++) packet[length++] = options[n] == ';' ? 0 : options[n];
    return length;
}

static void send_to(int fd, int port, int length) {
    struct sockaddr_in to = at(GATEWAY, port);
    sendto(fd, packet, length, 0, (void *)&to, sizeof to);
}

/* Sends a request, ends the transfer, and returns the opcode of the first reply, or -1. */
static int ask(int kind, const char *name, const char *options) {
    unsigned char answer[1600];
    static const unsigned char end[] = {0, 5, 0, 0, 0};
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    int fd = udp(1000), code = -1, tries;
    for (tries = 0; tries < 5 && code < 0; tries++) {
        send_to(fd, 69, request(kind, name, options));
        if (recvfrom(fd, answer, sizeof answer, 0, (void *)&from, &size) >= 4) code = answer[1];
    }
    if (code > 0 && code != 5) sendto(fd, end, sizeof end, 0, (void *)&from, size);
    close(fd);
    return code;
}

static int serves(void) { return ask(1, "task.manifest", "") == 3; }

static void names(void) {
    static char longest[401];
    const char *all[] = {
        "../../../../etc/passwd", "/etc/passwd", "artifacts/../../etc/passwd", "./task.manifest",
        "artifacts/%2e%2e/x", "%2e%2e/records.sqlite3", "artifacts/.hidden", "artifacts/a/b",
        "artifacts\\..\\x", "task.manifest/", "TASK.MANIFEST", "", "..", ".", "sources/..",
        "sources/../../records.sqlite3", "../2/artifacts/x", "../2/result.manifest", "toolchain.tar.gz",
        "bootstrap.manifest", "file:///etc/passwd", "/proc/self/environ", "artifacts/\377\376", longest,
    };
    int n, reached = 0, count = sizeof all / sizeof *all;
    memset(longest, 'x', 400);
    for (n = 0; n < count; n++) {
        if (ask(1, all[n], "") != 5) reached++;
        if (ask(2, all[n], "") != 5) reached++;
    }
    report(2 * count, reached, "names outside the namespace, fetched and put");
}

static void options(void) {
    const char *all[] = {
        "blksize;0;", "blksize;7;", "blksize;99999999999999999999;", "blksize;65464;windowsize;65535;",
        "blksize;8;windowsize;65535;", "tsize;18446744073709551615;timeout;255;",
        "blksize;-1;windowsize;;", "blksize", "windowsize;0;", "timeout;0;utimeout;1;",
        "blksize;8;blksize;65464;blksize;512;", "tsize;x;colour;red;",
    };
    int n, count = sizeof all / sizeof *all;
    for (n = 0; n < count; n++) ask(1, "task.manifest", all[n]), ask(2, "artifacts/x", all[n]);
    report(2 * count, !serves(), "block and window sizes, and other options, at their extremes");
}

static void noise(void) {
    int fd = udp(1), n, byte, length;
    for (n = 0; n < 5000; n++) {
        length = n % 200;
        for (byte = 0; byte < length; byte++) packet[byte] = rand();
        if (length > 2) packet[0] = 0, packet[1] %= 7;
        send_to(fd, n % 3 ? 69 : 32768 + rand() % 28000, length);
    }
    close(fd);
    report(n, !serves(), "malformed packets");
}

static void half_open(void) {
    int n, fd;
    for (n = 0; n < 10000; n++) {
        fd = udp(1);
        send_to(fd, 69, n % 2 ? request(1, "task.manifest", "blksize;65464;windowsize;64;")
                               : request(2, "artifacts/x", "tsize;1000000;"));
        close(fd);
    }
    sleep(2);
    report(n, !serves(), "half-open transfers");
}

/* Puts a file without end and returns the number of accepted bytes. */
static long endless(const char *name) {
    unsigned char answer[600];
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    long taken = 0;
    int fd = udp(3000), block;
    send_to(fd, 69, request(2, name, "blksize;8192;"));
    for (block = 0; block < 65000; block++) {
        if (recvfrom(fd, answer, sizeof answer, 0, (void *)&from, &size) < 4 || answer[1] == 5) break;
        packet[0] = 0, packet[1] = 3, packet[2] = (block + 1) >> 8, packet[3] = block + 1;
        sendto(fd, packet, 8196, 0, (void *)&from, size);
        taken = 8192L * block;
    }
    close(fd);
    return taken;
}

static void puts_without_end(long max) {
    report(1, endless("artifacts/x") > max, "a put without end");
    report(1, endless("result.manifest") > max, "a result without end");
    report(1, ask(2, "artifacts/x", "tsize;1073741824;") != 5, "a put with a size of 1 GiB");
    report(1, ask(2, "result.manifest", "tsize;1073741824;") != 5, "a result with a size of 1 GiB");
}

/* Returns how many ports of an address react, without the ports that are meant for guests. */
static int open_ports(const char *address, int first, int last) {
    int port = first, reached = 0;
    while (port <= last) {
        struct pollfd all[200];
        int ports[200], count = 0, n;
        for (; count < 200 && port <= last; port++) {
            struct sockaddr_in to = at(address, port);
            /* Nothing listens at 8080 without a cache, at 8686 without hash equivalence, and at 8588
               in a build that no other program drives. */
            if (port == 8585 || port == 8080 || port == 8686 || port == 8588) continue;
            all[count].fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
            all[count].events = POLLOUT;
            ports[count] = port;
            connect(all[count++].fd, (void *)&to, sizeof to);
        }
        usleep(300000);
        poll(all, count, 0);
        for (n = 0; n < count; n++) {
            int error = 0;
            socklen_t size = sizeof error;
            getsockopt(all[n].fd, SOL_SOCKET, SO_ERROR, &error, &size);
            /* A refused connection is a reaction, too. */
            if ((all[n].revents && error == 0) || error == ECONNREFUSED)
                reached++, printf("reached %s:%d\n", address, ports[n]);
            close(all[n].fd);
        }
    }
    return reached;
}

static void ports(int count, char **addresses) {
    int n, reached = 0, tried = 0;
    system("route add default gw " GATEWAY " 2>/dev/null");
    report(3000, open_ports(GATEWAY, 1, 1000) + open_ports(GATEWAY, 8000, 9999), "ports of the gateway");
    for (n = 0; n < count; n++) {
        char *port = strchr(addresses[n], ':');
        *port++ = 0;
        reached += open_ports(addresses[n], atoi(port), atoi(port));
        reached += open_ports(addresses[n], 22, 22);
        tried += 2;
    }
    report(tried, reached, "addresses of the host, and beyond it");
}

static int card;
static struct sockaddr_ll link_of;
static unsigned char own[6], gateway[6] = {255, 255, 255, 255, 255, 255};

static void frame(const unsigned char *to, const unsigned char *from, int type) {
    memset(packet, 0, 100);
    memcpy(packet, to, 6);
    memcpy(packet + 6, from, 6);
    packet[12] = type >> 8, packet[13] = type;
}

static void arp(const unsigned char *mac, unsigned sender, unsigned target, int code) {
    static const unsigned char all[6] = {255, 255, 255, 255, 255, 255};
    unsigned short head[] = {htons(1), htons(0x800), htons(0x604), htons(code)};
    frame(all, mac, 0x806);
    memcpy(packet + 14, head, 8);
    memcpy(packet + 22, mac, 6);
    memcpy(packet + 28, &sender, 4);
    memcpy(packet + 38, &target, 4);
    sendto(card, packet, 60, 0, (void *)&link_of, sizeof link_of);
}

/* Sends a request to the server's port with a forged source. */
static void forged(const unsigned char *mac, const char *source) {
    unsigned char head[28] = {0x45, 0, 0, 0, 0, 7, 0, 0, 64, 17};
    unsigned from = inet_addr(source), to = inet_addr(GATEWAY), sum = 0;
    static unsigned char body[100];
    int length = request(1, "task.manifest", ""), n;
    memcpy(body, packet, length);
    head[3] = 28 + length;
    memcpy(head + 12, &from, 4);
    memcpy(head + 16, &to, 4);
    for (n = 0; n < 20; n += 2) sum += head[n] << 8 | head[n + 1];
    sum = ~((sum & 0xffff) + (sum >> 16));
    head[10] = sum >> 8, head[11] = sum;
    head[20] = 0x99, head[21] = 0x99, head[23] = 69, head[25] = 8 + length;
    frame(gateway, mac, 0x800);
    memcpy(packet + 14, head, 28);
    memcpy(packet + 42, body, length);
    sendto(card, packet, 42 + length, 0, (void *)&link_of, sizeof link_of);
}

/* Returns how many frames arrive within some time that a guest must not receive. */
static int heard(int milliseconds, unsigned allowed) {
    unsigned char answer[2000];
    unsigned host = inet_addr(GATEWAY), sender;
    struct sockaddr_ll from;
    socklen_t size = sizeof from;
    struct pollfd one = {card, POLLIN, 0};
    int reached = 0, length;
    while (poll(&one, 1, milliseconds) > 0) {
        length = recvfrom(card, answer, sizeof answer, 0, (void *)&from, &size);
        if (length < 34 || from.sll_pkttype == PACKET_OUTGOING) continue;
        if (answer[12] == 8 && answer[13] == 6) {
            memcpy(&sender, answer + 28, 4);
            if (sender == host && answer[21] == 2) memcpy(gateway, answer + 6, 6);
            if (sender != host) reached++;
        } else if (answer[12] == 8 && answer[13] == 0) {
            memcpy(&sender, answer + 30, 4);
            if (sender != allowed) reached++;
        }
    }
    return reached;
}

static void neighbors(void) {
    unsigned char other[6] = {2, 0x62, 0x68, 0, 0, 0x77};
    const char *sources[] = {"169.254.111.77", "127.0.0.1", GATEWAY, "10.0.0.1", "8.8.8.8", "0.0.0.0"};
    unsigned me = inet_addr("169.254.111.1"), host = inet_addr(GATEWAY);
    int n, round;
    card = socket(AF_PACKET, SOCK_RAW, htons(3));
    link_of.sll_family = AF_PACKET;
    link_of.sll_ifindex = if_nametoindex("eth0");
    link_of.sll_halen = 6;
    FILE *file = fopen("/sys/class/net/eth0/address", "r");
    for (n = 0; n < 6; n++) {
        unsigned byte = 0;
        fscanf(file, n ? ":%x" : "%x", &byte);
        own[n] = byte;
    }
    fclose(file);
    for (n = 1; n < 255; n++) arp(own, me, htonl(0xa9fe6f00 | n), 1);
    report(254, heard(700, me), "ARP requests for neighbors");
    for (n = 0; n < 500; n++) arp(n % 2 ? other : own, n % 3 ? host : me + htonl(n % 200), n % 3 ? host : me, 1 + n % 2);
    report(500, heard(300, me) + !serves(), "forged ARP replies");
    for (round = 0; round < 50; round++)
        for (n = 0; n < 6; n++) forged(round % 2 ? own : other, sources[n]);
    for (n = 0; n < 50; n++) forged(other, "169.254.111.1");
    report(350, heard(700, me) + !serves(), "packets with a forged source");
}

static void set_oom_score(const char *score) {
    FILE *file = fopen("/proc/self/oom_score_adj", "w");
    if (file) fputs(score, file), fclose(file);
}

static void exhaust(void) {
    int n, forks = 0;
    pid_t first = 0, child;
    system("dmesg -n 1");
    set_oom_score("-1000");
    for (n = 0; n < 1000 && (child = fork()) >= 0; n++) {
        if (child == 0) pause(), _exit(0);
        if (!first) first = child;
        setpgid(child, first);
        forks++;
    }
    kill(-first, SIGKILL);
    report(forks, 0, "processes without end");
    for (n = 0; n < 3; n++) {
        child = fork();
        if (child == 0) {
            set_oom_score("1000");
            for (;;) {
                char *memory = malloc(1 << 20);
                if (!memory) _exit(0);
                memset(memory, 1, 1 << 20);
            }
        }
        waitpid(child, NULL, 0);
    }
    report(n, 0, "all memory eaten");
}

/* Puts a result that names a thousand packages, none of which was put. */
static void a_thousand_packages(void) {
    FILE *file = fopen("result.manifest", "w");
    int n;
    fputs(": 1\nstatus: success\n", file);
    for (n = 0; n < 1000; n++)
        fprintf(file, ":\npackage: victim%d\nversion: 1\nrecipe-revision: r0\narchitecture: x86_64\n"
                      "checksum: %064d\nfile: victim%d.ipk\n", n, n, n);
    fclose(file);
    report(1, 0, "a result with a thousand packages");
    sleep(1);
    system("tftp -p -b 1428 -l result.manifest -r result.manifest " GATEWAY);
}

int main(void) {
    char text[] = ADDRESSES, *addresses[20], *word;
    int count = 0;
    began = time(NULL);
    for (word = strtok(text, " "); word && count < 20; word = strtok(NULL, " ")) addresses[count++] = word;
    names();
    options();
    noise();
    half_open();
    puts_without_end(LIMIT);
    ports(count, addresses);
    neighbors();
    exhaust();
    a_thousand_packages();
    system("poweroff -f");
    return 0;
}
