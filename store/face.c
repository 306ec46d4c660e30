/* face.c -- the public calls that only hand on what base/ knows. */
#include "base/error.h"

const char *stead_strerror(int error)
{
    return error_text(error);
}

int stead_last_error(void)
{
    return error_last();
}

const char *stead_last_error_text(void)
{
    return error_last_text();
}
