#include "block/node_reopen.hpp"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "block/node_opener.hpp"
#include "block/qcow2/image.hpp"
#include "block/qcow2_options.hpp"

namespace whistler {

using node_detail::refuse;

namespace {

/// Options every node lets change.
constexpr std::array kMutable = {"read-only", "auto-read-only", "discard", "detect-zeroes"};

Result<void> check_values(const Node& node, Options& asked, const Options& before) {
  Options common = asked;  // a copy: the names that may not change are still to be looked at
  NodeFlags flags;
  if (auto ok = node_detail::take_common(common, flags); !ok) {
    return ok;
  }
  for (const auto* key : kMutable) {
    asked.erase(key);
  }
  if (common.contains("cache")) {
    asked["cache"] = common["cache"];
  } else {
    asked.erase("cache");
  }
  if (node.qcow2 != nullptr) {
    Options joined = asked;
    join_options(joined, before);
    const auto runtime = take_qcow2_options(joined);
    if (!runtime) {
      return std::unexpected(runtime.error());
    }
    if (auto ok = check_qcow2_options(*runtime, node.qcow2->header()); !ok) {
      return ok;
    }
    std::erase_if(asked.get_ref<Options::object_t&>(),
                  [](const auto& item) { return is_qcow2_option(item.first); });
    asked.erase("encrypt");  // keys are only looked at when the image is opened again
  } else if (node.driver == "raw") {
    asked.erase("offset");
    asked.erase("size");
  }
  return {};
}

Result<void> check_child_option(const Node* child, const std::string& key, Options& asked,
                                const Options& before) {
  const auto found = asked.find(key);
  if (found == asked.end()) {
    return {};
  }
  if (found->is_string()) {
    return refuse(fmt::format("Cannot find device='' nor node-name='{}'", found->get<std::string>()));
  }
  if (child == nullptr || !found->is_object()) {
    return {};
  }
  Options below = std::move(*found);
  asked.erase(found);
  const auto old = before.find(key);
  return check_reopen(*child, std::move(below),
                      old != before.end() && old->is_object() ? *old : Options::object());
}

}  // namespace

Result<void> check_reopen(const Node& node, Options asked, const Options& before) {
  if (auto ok = check_values(node, asked, before); !ok) {
    return ok;
  }
  const auto* const primary = node.driver == "blkdebug" ? "image" : "file";
  for (const auto& [child, key] :
       {std::pair(node.file.get(), primary), std::pair(node.data_file.get(), "data-file"),
        std::pair(node.backing.get(), "backing")}) {
    if (auto ok = check_child_option(child, key, asked, before); !ok) {
      return ok;
    }
  }
  for (const auto& item : asked.items()) {
    const auto wanted = option_text(asked, item.key());
    const bool same = wanted && (wanted == option_text(before, item.key()) ||
                                 wanted == option_text(node.full_options, item.key()));
    if (!same) {
      std::string name = item.key();
      for (const Options* at = &item.value(); at->is_object() && !at->empty(); at = &at->begin().value()) {
        name += "." + at->begin().key();
      }
      return refuse(fmt::format("Cannot change the option '{}'", name));
    }
  }
  return {};
}

}  // namespace whistler
