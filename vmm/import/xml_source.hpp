// An XML document from a stranger: parsed within limits, every element knows its line.
#pragma once

#include <cstddef>
#include <pugixml.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/import/imported_machine.hpp"

namespace whistler {

class XmlSource {
 public:
  /// What is wrong becomes the report's error: not UTF-8, not XML, a DOCTYPE with declarations (where entity
  /// bombs and external entities live), nesting beyond reason.
  bool parse(std::string_view text, ImportReport& report);

  /// The one element that the document is.
  [[nodiscard]] pugi::xml_node root() const { return document_.document_element(); }
  [[nodiscard]] std::size_t line_of(pugi::xml_node node) const;
  /// "line 12: disk"; the place of a note or an error.
  [[nodiscard]] std::string place_of(pugi::xml_node node) const;

 private:
  [[nodiscard]] std::size_t line_at(std::size_t offset) const;

  pugi::xml_document document_;
  std::vector<std::size_t> ends_of_lines_;
};

}  // namespace whistler
