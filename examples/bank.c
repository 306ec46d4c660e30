/*
 * bank.c -- TURNS: several processes move money between accounts; a section is a transaction.
 *
 *   bank FILE [TRANSFERS]
 *
 * Two clerks transfer at random.  A third is killed between taking the money and handing it over: his section never
 * happened, and the others do not even notice.  No money is made or lost.
 */
#if !defined(_DEFAULT_SOURCE) && !defined(_GNU_SOURCE)
#define _DEFAULT_SOURCE /* rand_r, also with -std=c11 */
#endif
#include <stead.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define ACCOUNTS 100
#define START 1000 /* on each account, first of all */

struct bank {
    long balance[ACCOUNTS];
    unsigned long transfers;
};

static void bank_init(void *root, void *arg)
{
    struct bank *bank = root;
    (void)arg;
    for (int i = 0; i < ACCOUNTS; i++)
        bank->balance[i] = START;
}

static stead *bank_open(const char *path, struct bank **bank)
{
    stead *s;
    void *root;
    stead_options options = {.sharing = STEAD_TURNS, .timeout_ms = -1};
    if (stead_open(&s, path, &options) != 0 || stead_root_once(s, sizeof(struct bank), bank_init, NULL, &root) != 0) {
        fprintf(stderr, "bank: %s\n", stead_last_error_text());
        exit(1);
    }
    *bank = root;
    return s;
}

static void clerk(const char *path, int transfers, unsigned seed, bool dies)
{
    struct bank *bank;
    stead *s = bank_open(path, &bank);
    for (int i = 0; i < transfers; i++) {
        int from = rand_r(&seed) % ACCOUNTS, to = rand_r(&seed) % ACCOUNTS;
        long amount = rand_r(&seed) % 100;
        int rc = stead_lock(s, STEAD_EXCLUSIVE, -1);
        if (rc == 0) {
            bank->balance[from] -= amount;
            if (dies && i == transfers / 2)
                raise(SIGKILL); /* the money is in nobody's hands */
            bank->balance[to] += amount;
            bank->transfers++;
            rc = stead_unlock(s); /* commits */
        }
        if (rc != 0) {
            fprintf(stderr, "bank: %s\n", stead_last_error_text());
            exit(1);
        }
    }
    exit(stead_close(s) != 0);
}

static long bank_sum(const struct bank *bank)
{
    long sum = 0;
    for (int i = 0; i < ACCOUNTS; i++)
        sum += bank->balance[i];
    return sum;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: bank FILE [TRANSFERS]\n");
        return 2;
    }
    int transfers = argc > 2 ? atoi(argv[2]) : 100;
    bool fine = true;
    pid_t pids[3];
    for (int i = 0; i < 3; i++) {
        pids[i] = fork(); /* before the store is open: each process opens it for itself */
        if (pids[i] == 0)
            clerk(argv[1], transfers, (unsigned)i + 1, i == 2);
    }
    for (int i = 0; i < 3; i++) {
        int status;
        fine &= pids[i] > 0 && waitpid(pids[i], &status, 0) == pids[i];
        fine &= fine && (i == 2 ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }

    struct bank *bank;
    stead *s = bank_open(argv[1], &bank);
    STEAD_LOCKED(s, STEAD_SHARED)
    {
        fine &= bank_sum(bank) == (long)ACCOUNTS * START;
        printf("%lu transfers, %ld in all accounts\n", bank->transfers, bank_sum(bank));
    }
    return stead_close(s) == 0 && fine ? 0 : 1;
}
