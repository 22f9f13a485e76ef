// Files that hold code for several processes.
#ifndef FOTHER_CLINUX_CODE_H
#define FOTHER_CLINUX_CODE_H
#include <stddef.h>
#include <stdint.h>

/// Which file, whatever it is called.
struct fother_file_id {
    uint64_t device, inode;
};
/// In `folder`, the file `name` with exactly these bytes, readable by all and changeable by nobody, root included, while it has
/// its immutable flag; made when there is none. `label` is its SELinux label, or NULL for none. -EOPNOTSUPP or -ENOTTY when the
/// file system has no such flag, -EBADMSG when another file has the name.
int fother_code_file(int folder, const char *name, const void *bytes, size_t size, const char *label, struct fother_file_id *id);
/// Creates a folder of this user's that others may only look into, and opens it. -EPERM when others may write to it.
int fother_open_code_folder(const char *path);
/// 0 when a process with the root directory `root` means `id` by `path`, else -errno: -ENOENT for another file. Never waits for a
/// file system. Needs openat2 with RESOLVE_CACHED, kernel 5.12 (-EINVAL before).
int fother_names_file(const char *root, const char *path, struct fother_file_id id);
/// 0 when `path` leads to `id`, links followed.
int fother_is_file(const char *path, struct fother_file_id id);
/// The SELinux label of a file, with its NUL; its length, or -errno (-ENODATA for none).
int64_t fother_label(const char *path, char *label, size_t size);
#endif
