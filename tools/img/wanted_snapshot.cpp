#include "tools/img/wanted_snapshot.hpp"

#include <fmt/format.h>

#include "block/qcow2/image.hpp"

namespace whistler::tools {

std::optional<WantedSnapshot> read_wanted_snapshot(const Call& call, const std::string& text) {
  if (!text.starts_with("snapshot.")) {
    return WantedSnapshot{.id = "", .name = "", .either = text};
  }
  const auto options = parse_dotted_options(text);
  const auto refuse = [&] {
    complain(call, fmt::format("Failed in parsing snapshot param '{}'", text));
    return std::nullopt;
  };
  if (!options) {
    return refuse();
  }
  const auto names = options->value("snapshot", Options::object());  // a dot makes a level
  for (const auto& [key, value] : names.items()) {
    if (key != "id" && key != "name") {
      complain(call, fmt::format("Invalid parameter 'snapshot.{}'", key));
      return refuse();
    }
  }
  return WantedSnapshot{option_text(names, "id").value_or(""), option_text(names, "name").value_or(""), ""};
}

bool show_wanted_snapshot(const Call& call, Ring& ring, const Node& node, const WantedSnapshot& wanted) {
  if (node.qcow2 == nullptr) {
    complain(call,
             fmt::format("Failed to load snapshot: Block format '{}' used by device '' does not support "
                         "temporarily loading internal snapshots",
                         node.driver));
    return false;
  }
  Result<void> done;
  if (!wanted.either.empty()) {
    done = sync_wait(ring, node.qcow2->show_snapshot(wanted.either, ""));
    if (!done && done.error().code == ErrorCode::kNotFound) {
      done = sync_wait(ring, node.qcow2->show_snapshot("", wanted.either));
    }
  } else {
    done = sync_wait(ring, node.qcow2->show_snapshot(wanted.id, wanted.name));
  }
  if (!done) {
    complain(call, fmt::format("Failed to load snapshot: {}", done.error().code == ErrorCode::kNotFound
                                                                  ? std::string("Can't find snapshot")
                                                                  : tool_text(done.error())));
  }
  return done.has_value();
}

}  // namespace whistler::tools
