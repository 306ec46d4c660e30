/*
 * bank.c -- the program whose power is cut (power_cut.sh): what it had told before the cut must be there after it.
 *
 *   bank run sole|turns FILE            works for ever; after each durable commit prints "durable N"
 *   bank verify sole|turns FILE N       opens what the cut left; N is the last number that came out
 *
 * Transfers between accounts, which live in blocks of their own and come and go, leave the sum of all at 0 in every commit.
 * Once in a while a chain of some thousand blocks grows and goes again, so that the file grows, commits write new pages straight
 * and free room is punched; one commit in three is BUFFERED; after LIFE commits the store is closed and opened again, once in
 * between without a change.
 * The number of the commit is in the store: a lost durable commit is a number below N, a mixture of commits a sum that
 * is not 0 or a chain whose length is not the recorded one.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stead.h"

enum { ACCOUNTS = 20000, LIFE = 60, TRANSFERS = 8, MANY_TRANSFERS = 2000, LINKS = 20000, LINK_MARK = 77 };

struct account {
    long balance;
    char owner[40];
};
struct link {
    struct link *next;
    long mark;
    char payload[48];
};
struct bank {
    unsigned long commits, links;
    struct link *chain;
    struct account *account[ACCOUNTS];
};

static void must(int rc, const char *what)
{
    if (rc == 0)
        return;
    printf("BAD %s: %s\n", what, stead_last_error_text());
    exit(1);
}

static struct account *account_of(stead *store, struct bank *bank, int i)
{
    if (bank->account[i] == NULL)
        bank->account[i] = stead_new(store, struct account);
    must(bank->account[i] == NULL, "an account");
    return bank->account[i];
}

static void transfer(stead *store, struct bank *bank, unsigned *seed)
{
    int from = rand_r(seed) % ACCOUNTS, to = rand_r(seed) % ACCOUNTS, amount = rand_r(seed) % 1000;
    account_of(store, bank, from)->balance -= amount;
    account_of(store, bank, to)->balance += amount;
    if (bank->account[from]->balance == 0) {
        stead_free(bank->account[from]);
        bank->account[from] = NULL;
    }
}

static void grow_chain(stead *store, struct bank *bank, unsigned *seed)
{
    for (int i = rand_r(seed) % LINKS; i > 0; i--) {
        struct link *link = stead_malloc(store, sizeof *link);
        must(link == NULL, "a link");
        memset(link, 0, sizeof *link);
        link->mark = LINK_MARK;
        link->next = bank->chain;
        bank->chain = link;
        bank->links++;
    }
}

static void free_chain(struct bank *bank)
{
    while (bank->chain != NULL) {
        struct link *link = bank->chain;
        bank->chain = link->next;
        bank->links--;
        stead_free(link);
    }
}

static void section(stead *store, struct bank *bank, bool turns, unsigned *seed)
{
    unsigned long round = bank->commits % LIFE;
    if (turns)
        must(stead_lock(store, STEAD_EXCLUSIVE, -1), "the lock");
    for (int i = rand_r(seed) % (round % 20 == 0 ? MANY_TRANSFERS : TRANSFERS); i >= 0; i--)
        transfer(store, bank, seed);
    if (round % 50 == 25)
        grow_chain(store, bank, seed);
    if (round % 50 == 45)
        free_chain(bank);
    unsigned long number = ++bank->commits;
    bool durable = rand_r(seed) % 3 != 0;
    if (durable || !turns)
        must(stead_commit(store, durable ? STEAD_DURABLE : STEAD_BUFFERED), "a commit");
    if (turns)
        must(stead_unlock(store), "an unlock");
    if (durable)
        printf("durable %lu\n", number);
}

static _Noreturn void run(const char *path, const stead_options *options)
{
    for (unsigned seed = 1;;) {
        stead *store;
        void *bank;
        must(stead_open(&store, path, options), "the open");
        must(stead_root_once(store, sizeof(struct bank), NULL, NULL, &bank), "the root");
        for (int i = 0; i < LIFE; i++)
            section(store, bank, options->sharing == STEAD_TURNS, &seed);
        unsigned long number = ((struct bank *)bank)->commits;
        must(stead_close(store), "the close");
        printf("durable %lu\n", number);
        must(stead_open(&store, path, options), "the open for nothing");
        must(stead_close(store), "the close for nothing");
    }
}

static int verify_bank(const struct bank *bank, unsigned long told)
{
    long sum = 0;
    unsigned long links = 0, strange = 0;
    for (int i = 0; i < ACCOUNTS; i++)
        sum += bank->account[i] == NULL ? 0 : bank->account[i]->balance;
    for (const struct link *link = bank->chain; link != NULL && links <= bank->links; link = link->next, links++)
        strange += link->mark != LINK_MARK;
    bool good = sum == 0 && links == bank->links && strange == 0 && bank->commits >= told;
    printf("%s %lu commits, %lu told of; sum %ld; %lu links, %lu recorded, %lu strange\n", good ? "GOOD" : "BAD",
           bank->commits, told, sum, links, bank->links, strange);
    return good ? 0 : 1;
}

static int verify(const char *path, const stead_options *options, unsigned long told)
{
    stead *store;
    stead_report report;
    int rc = stead_open(&store, path, options);
    if (rc == ENOENT && told == 0)
        return printf("GOOD no store yet\n"), 0;
    must(rc, "the open");
    const struct bank *bank = stead_root(store);
    rc = bank != NULL ? verify_bank(bank, told) : 0;
    must(bank == NULL && told != 0 ? ENOENT : 0, "no root");
    must(stead_check(store, &report), "the check");
    must(stead_close(store), "the close");
    return rc;
}

int main(int argc, char **argv)
{
    setlinebuf(stdout);
    bool runs = argc == 4 && strcmp(argv[1], "run") == 0;
    if (!runs && !(argc == 5 && strcmp(argv[1], "verify") == 0)) {
        fprintf(stderr, "usage: bank run sole|turns FILE\n       bank verify sole|turns FILE NUMBER\n");
        return 2;
    }
    stead_options options = {.flags = runs ? 0 : STEAD_EXISTING,
                             .sharing = strcmp(argv[2], "turns") == 0 ? STEAD_TURNS : STEAD_SOLE};
    if (runs)
        run(argv[3], &options);
    return verify(argv[3], &options, strtoul(argv[4], NULL, 10));
}
