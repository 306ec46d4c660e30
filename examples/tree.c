/*
 * tree.c -- a binary tree of words that survives: the README's program with all three operations.
 *
 *   tree FILE insert WORD...    tree FILE remove WORD...    tree FILE list
 *
 * One commit at the end: after a crash in the middle the file holds the tree of the run before, whole.
 */
#include <stead.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct node {
    struct node *left, *right;
    char word[]; /* zero-terminated */
};

/* The link that points to word's node, or where it would be. */
static struct node **tree_find(struct node **link, const char *word)
{
    while (*link != NULL) {
        int order = strcmp(word, (*link)->word);
        if (order == 0)
            break;
        link = order < 0 ? &(*link)->left : &(*link)->right;
    }
    return link;
}

static int tree_insert(stead *s, struct node **top, const char *word)
{
    struct node **link = tree_find(top, word);
    if (*link != NULL)
        return 0;
    struct node *fresh = stead_calloc(s, 1, sizeof *fresh + strlen(word) + 1);
    if (fresh == NULL)
        return errno;
    strcpy(fresh->word, word);
    *link = fresh;
    return 0;
}

static int tree_remove(struct node **top, const char *word)
{
    struct node **link = tree_find(top, word);
    struct node *old = *link;
    if (old == NULL)
        return 0;
    if (old->left != NULL && old->right != NULL) { /* the next larger word takes its place */
        struct node **next = &old->right;
        while ((*next)->left != NULL)
            next = &(*next)->left;
        struct node *heir = *next;
        *next = heir->right;
        heir->left = old->left;
        heir->right = old->right; /* read after *next was written: heir may be old->right itself */
        *link = heir;
    } else {
        *link = old->left != NULL ? old->left : old->right;
    }
    stead_free(old);
    return 0;
}

static void tree_list(const struct node *node)
{
    for (; node != NULL; node = node->right) { /* recursion to the left only */
        tree_list(node->left);
        puts(node->word);
    }
}

int main(int argc, char **argv)
{
    bool insert = argc > 3 && strcmp(argv[2], "insert") == 0;
    bool remove = argc > 3 && strcmp(argv[2], "remove") == 0;
    if (!insert && !remove && !(argc == 3 && strcmp(argv[2], "list") == 0)) {
        fprintf(stderr, "usage: tree FILE insert WORD... | tree FILE remove WORD... | tree FILE list\n");
        return 2;
    }
    stead *s;
    void *root = NULL;
    int rc = stead_open(&s, argv[1], NULL);
    if (rc == 0)
        rc = stead_root_once(s, sizeof(struct node *), NULL, NULL, &root);
    for (int i = 3; rc == 0 && i < argc; i++)
        rc = insert ? tree_insert(s, root, argv[i]) : tree_remove(root, argv[i]);
    if (rc == 0 && !insert && !remove)
        tree_list(*(struct node **)root);
    if (rc == 0)
        rc = stead_commit(s, STEAD_DURABLE);
    if (rc != 0)
        fprintf(stderr, "tree: %s\n", stead_last_error_text());
    if (s != NULL && rc == 0)
        rc = stead_close(s);
    else if (s != NULL)
        stead_abandon(s); /* half a command line is not worth keeping */
    return rc != 0;
}
