#include "tools/io/open_image.hpp"

#include <fmt/format.h>

#include "block/qcow2/image.hpp"

namespace whistler::tools::io {

Result<OpenedImage> open_request(Session& session, OpenRequest request) {
  auto device = open_image(session.ring(), {.path = request.name,
                                            .format = request.format.empty() ? "qcow2" : request.format,
                                            .read_only = request.read_only,
                                            .cache = request.cache,
                                            .force_share = request.force_share,
                                            .inline_writes = true,
                                            .discard = request.discard});
  if (!device) {
    return std::unexpected(device.error());
  }
  OpenedImage image{std::move(*device), request.format.empty() ? "qcow2" : request.format, nullptr, request};
  image.qcow2 = dynamic_cast<qcow2::Image*>(image.device.get());
  return image;
}

bool take_cache(const Session& session, std::string_view value, OpenRequest& request) {
  const auto mode = parse_cache_mode(value == "off" ? "none" : value);
  if (!mode) {
    session.complain(fmt::format("Invalid cache option: {}", value));
    return false;
  }
  request.cache = *mode;
  return true;
}

bool take_discard(const Session& session, std::string_view value, OpenRequest& request) {
  if (value == "unmap" || value == "on") {
    request.discard = true;
  } else if (value == "ignore" || value == "off") {
    request.discard = false;
  } else {
    session.complain(fmt::format("Invalid discard option: {}", value));
    return false;
  }
  return true;
}

bool take_aio(const Session& session, std::string_view value, OpenRequest& request) {
  if (value != "threads" && value != "native" && value != "io_uring") {
    session.complain(fmt::format("Invalid aio option: {}", value));
    return false;
  }
  request.native_aio = value == "native";
  return true;
}

}  // namespace whistler::tools::io
