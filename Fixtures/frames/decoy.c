// A second unwinder in a process, as far as its name goes. With LLVM defined: functions of libgcc's names that do nothing, as
// LLVM's unwinder has them.
int _Unwind_RaiseException(void *exception) { return exception ? 9 : 5; }
#ifdef LLVM
void __register_frame_info(const void *begin, void *object) { (void)begin, (void)object; }
void *__deregister_frame_info(const void *begin) { (void)begin; return 0; }
#endif
