/* Names of the kernel's and of glibc's that musl does not spell; included before a program is built with musl. */

#ifndef RKT_MUSL_H
#define RKT_MUSL_H

#define _GNU_SOURCE

#include <linux/close_range.h>
#include <linux/mount.h>

#define __rlimit_resource_t int

#endif
