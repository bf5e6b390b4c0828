#include "vmm/import/xml_source.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace whistler {
namespace {

constexpr int kDeepest = 64;

/// Walks the tree without recursion, to the first element that is too deep.
class DepthGuard final : public pugi::xml_tree_walker {
 public:
  bool for_each(pugi::xml_node& node) override {
    if (depth() > kDeepest) {
      too_deep = node.parent();
    }
    return !too_deep;
  }
  pugi::xml_node too_deep;
};

}  // namespace

std::size_t XmlSource::line_at(std::size_t offset) const {
  const auto after = std::ranges::lower_bound(ends_of_lines_, offset);
  return static_cast<std::size_t>(after - ends_of_lines_.begin()) + 1;
}

std::size_t XmlSource::line_of(pugi::xml_node node) const {
  const auto offset = node.offset_debug();
  return line_at(offset < 0 ? 0 : static_cast<std::size_t>(offset));
}

std::string XmlSource::place_of(pugi::xml_node node) const {
  return fmt::format("line {}: {}", line_of(node), node.name());
}

bool XmlSource::parse(std::string_view text, ImportReport& report) {
  if (!is_plain_text(text)) {
    report.error("", "is not UTF-8 text: give the XML that `virsh dumpxml NAME` prints");
    return false;
  }
  for (std::size_t i = text.find('\n'); i != std::string_view::npos; i = text.find('\n', i + 1)) {
    ends_of_lines_.push_back(i);
  }
  const auto options = pugi::parse_default | pugi::parse_doctype | pugi::parse_trim_pcdata;
  const auto done = document_.load_buffer(text.data(), text.size(), options, pugi::encoding_utf8);
  // Also with an error further on: what is wrong first counts.
  for (const auto node : document_.children()) {
    const std::string_view declared = node.value();
    if (node.type() == pugi::node_doctype && declared.find_first_of("[\"'") != std::string_view::npos) {
      report.error(fmt::format("line {}: DOCTYPE", line_of(node)),
                   "declares entities or names another file, which a domain never needs: take it out");
      return false;
    }
  }
  if (!done) {
    const bool nothing = done.status == pugi::status_no_document_element;
    report.error(nothing ? "" : fmt::format("line {}", line_at(static_cast<std::size_t>(done.offset))),
                 fmt::format("is not XML: {}; give the XML that `virsh dumpxml NAME` prints",
                             nothing ? "there is no element in it" : done.description()));
    return false;
  }
  DepthGuard guard;
  document_.traverse(guard);
  if (guard.too_deep) {
    report.error(place_of(guard.too_deep), fmt::format("is nested deeper than {} elements", kDeepest));
    return false;
  }
  if (root().next_sibling()) {
    report.error(place_of(root().next_sibling()), "stands after the end of the document: one domain a file");
    return false;
  }
  return true;
}

}  // namespace whistler
