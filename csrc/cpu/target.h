// The instruction set of the rest of a file, for GCC and Clang. Standard headers are included before it, and the file
// instantiates no std template after it: such code would be shared with files that must run without that instruction
// set.
#pragma once

#define GRADSIM_PRAGMA(x) _Pragma(#x)
#if defined(__clang__)
#define GRADSIM_TARGET(features) \
  GRADSIM_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define GRADSIM_TARGET_END _Pragma("clang attribute pop")
#else
#define GRADSIM_TARGET(features) GRADSIM_PRAGMA(GCC target(features))
#define GRADSIM_TARGET_END
#endif
