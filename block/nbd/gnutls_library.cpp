#include "block/nbd/gnutls_library.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

namespace whistler::nbd {

namespace {

constexpr const char* kLibrary = "libgnutls.so.30";

GnuTls functions;

bool find_all() {
  void* const library = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return false;
  }
#define WHISTLER_GNUTLS_FIND(name)                                                                \
  functions.name = reinterpret_cast<decltype(functions.name)>(::dlsym(library, "gnutls_" #name)); \
  if (functions.name == nullptr) {                                                                \
    return false;                                                                                 \
  }
  WHISTLER_GNUTLS_FUNCTIONS(WHISTLER_GNUTLS_FIND)
#undef WHISTLER_GNUTLS_FIND
  return true;
}

}  // namespace

Result<void> GnuTls::load() {
  static const bool complete = find_all();
  if (!complete) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("TLS: cannot load {}; install the package libgnutls30", kLibrary));
  }
  return {};
}

const GnuTls& gnutls() { return functions; }

}  // namespace whistler::nbd
