// whistler nbd: serves images over NBD, or lists what another server offers.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>

#include <cerrno>
#include <system_error>

#include "base/unique_fd.hpp"
#include "tools/nbd/list.hpp"
#include "tools/nbd/options.hpp"
#include "tools/nbd/serve.hpp"
#include "tools/objects.hpp"
#include "tools/tool.hpp"

namespace whistler::tools {

namespace {

/// -c and -d: the kernel's own client is left to others. Says why.
int refuse_device(const Call& call, const std::string& device, const char* verb) {
  const UniqueFd file(::open(device.c_str(), O_RDWR | O_CLOEXEC));
  if (!file) {
    complain(call, fmt::format("{} {}: {}", verb, device, std::generic_category().message(errno)));
  } else {
    complain(call, fmt::format("{}: the kernel's NBD client is not set up here: serve with -k or -p, and "
                               "connect it with nbd-client",
                               device));
  }
  return 1;
}

}  // namespace

int nbd_main(const Call& call) {
  ::signal(SIGPIPE, SIG_IGN);
  int status = 0;
  const auto options = nbd::parse_options(call, status);
  if (!options) {
    return status;
  }
  for (const auto& text : options->objects) {
    if (auto ok = define_object(text); !ok) {
      complain(call, ok.error().message);
      return 1;
    }
  }
  if (options->disconnect) {
    return refuse_device(call, options->file.value_or(""), "Cannot open");
  }
  if (!options->device.empty()) {
    return refuse_device(call, options->device, "Failed to open");
  }
  return options->list ? nbd::list_exports(call, *options) : nbd::serve(call, *options);
}

}  // namespace whistler::tools
