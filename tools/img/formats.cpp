#include "tools/img/formats.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "tools/img/encryption.hpp"
#include "tools/img/new_foreign.hpp"
#include "tools/img/new_qcow2.hpp"

namespace whistler::tools {

namespace {

constexpr std::array kFileOptions = {
    OptionSpec{"size", OptionType::kSize, "", "Virtual disk size"},
    OptionSpec{"nocow", OptionType::kFlag, "", "Turn off copy-on-write (valid only on btrfs)"},
    OptionSpec{"preallocation", OptionType::kText, "",
               "Preallocation mode (allowed values: off, falloc, full)"},
    OptionSpec{"extent_size_hint", OptionType::kSize, "",
               "Extent size hint for the image file, 0 to disable"}};

constexpr std::array kRawOptions = {OptionSpec{"size", OptionType::kSize, "", "Virtual disk size"}};

const std::vector<ImageFormat>& image_formats() {
  static const std::vector<ImageFormat> formats = {
      {"raw", kRawOptions, create_raw, {}, create_raw_on},
      {"qcow2", qcow2_create_options(), create_qcow2, qcow2_amend_options(), create_qcow2_on},
      {"vdi", vdi_create_options(), create_vdi},
      {"vpc", vpc_create_options(), create_vpc},
      {"file", kFileOptions, create_raw},
      luks_image_format(),
  };
  return formats;
}

std::string_view type_name(OptionType type) {
  switch (type) {
    case OptionType::kText: return "str";
    case OptionType::kSize: return "size";
    case OptionType::kFlag: return "bool (on/off)";
    case OptionType::kNumber: return "num";
  }
  return "";
}

constexpr std::string_view kSuffixHelp =
    "\nOptional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, "
    "respectively.";

Result<Options> read_value(const OptionSpec& spec, const std::string& text) {
  switch (spec.type) {
    case OptionType::kText: return Options(text);
    case OptionType::kFlag:
      if (text == "on" || text == "yes" || text == "true" || text == "y") {
        return Options(true);
      }
      if (text == "off" || text == "no" || text == "false" || text == "n") {
        return Options(false);
      }
      return fail(ErrorCode::kInvalid, fmt::format("Parameter '{}' expects 'on' or 'off'", spec.name));
    case OptionType::kSize: {
      const auto size = parse_size_text(text);
      if (!size && size.error().code == ErrorCode::kNoSpace) {
        return fail(ErrorCode::kInvalid,
                    fmt::format("Value '{}' is out of range for parameter '{}'", text, spec.name));
      }
      if (!size) {
        return fail(
            ErrorCode::kInvalid,
            fmt::format("Parameter '{}' expects a non-negative number below 2^64{}", spec.name, kSuffixHelp));
      }
      return Options(*size);
    }
    case OptionType::kNumber: break;
  }
  std::uint64_t number = 0;
  const bool negative = text.starts_with('-');  // QEMU counts down from 2^64, and finds it too large later
  const bool hex = text.starts_with("0x");
  const auto* const begin = text.data() + (negative ? 1 : hex ? 2 : 0);
  const auto* const end = text.data() + text.size();
  const auto [after, bad] = std::from_chars(begin, end, number, hex ? 16 : 10);
  if (bad != std::errc{} || after != end) {
    return fail(ErrorCode::kInvalid, fmt::format("Parameter '{}' expects a number", spec.name));
  }
  return Options(negative ? 0 - number : number);
}

}  // namespace

const ImageFormat* find_image_format(std::string_view name) {
  for (const auto& format : image_formats()) {
    if (format.name == name) {
      return &format;
    }
  }
  return nullptr;
}

std::span<const OptionSpec> file_options() { return kFileOptions; }

std::vector<OptionSpec> all_options(const ImageFormat& format, bool with_file) {
  std::vector<OptionSpec> all(format.options.begin(), format.options.end());
  for (const auto& option : kFileOptions) {
    if (with_file && std::none_of(format.options.begin(), format.options.end(),
                                  [&](const OptionSpec& spec) { return spec.name == option.name; })) {
      all.push_back(option);
    }
  }
  return all;
}

std::vector<GivenOption> split_option_list(std::string_view text) {
  std::vector<GivenOption> given;
  std::size_t at = 0;
  while (at < text.size()) {
    std::string part;
    for (; at < text.size(); ++at) {
      if (text[at] == ',') {
        if (at + 1 < text.size() && text[at + 1] == ',') {
          ++at;
        } else {
          break;
        }
      }
      part += text[at];
    }
    ++at;
    const auto equals = part.find('=');
    if (equals != std::string::npos) {
      given.push_back({part.substr(0, equals), part.substr(equals + 1)});
    } else if (part.starts_with("no") && part.size() > 2) {
      given.push_back({part.substr(2), "off"});
    } else {
      given.push_back({part, "on"});
    }
  }
  return given;
}

bool asks_for_help(std::string_view text) {
  while (!text.empty()) {
    const auto comma = text.find(',');
    const auto part = text.substr(0, comma);
    if (part == "help" || part == "?") {
      return true;
    }
    text = comma == std::string_view::npos ? std::string_view{} : text.substr(comma + 1);
  }
  return false;
}

bool is_option_list(std::string_view text) {
  if (text.empty() || text.front() == ',') {
    return false;
  }
  std::size_t commas = 0;
  while (commas < text.size() && text[text.size() - 1 - commas] == ',') {
    ++commas;
  }
  return commas % 2 == 0;
}

Result<Options> read_values(const std::vector<OptionSpec>& specs, const std::vector<GivenOption>& given) {
  Options values = Options::object();
  for (const auto& option : given) {
    const auto spec = std::find_if(specs.begin(), specs.end(), [&](const OptionSpec& candidate) {
      return candidate.name == option.name;
    });
    if (spec == specs.end()) {
      return fail(ErrorCode::kInvalid, fmt::format("Invalid parameter '{}'", option.name));
    }
    auto value = read_value(*spec, option.value);
    if (!value) {
      return std::unexpected(value.error());
    }
    values[option.name] = std::move(*value);
  }
  return values;
}

void print_option_help(const std::vector<OptionSpec>& specs) {
  auto sorted = specs;
  std::sort(sorted.begin(), sorted.end(),
            [](const OptionSpec& a, const OptionSpec& b) { return a.name < b.name; });
  for (const auto& spec : sorted) {
    fmt::print("  {:<22} - {}\n", fmt::format("{}=<{}>", spec.name, type_name(spec.type)), spec.help);
  }
}

std::string show_values(const std::vector<OptionSpec>& specs, const Options& values) {
  std::string shown;
  for (const auto& spec : specs) {
    const auto found = values.find(std::string(spec.name));
    std::string value(spec.standard);
    if (found != values.end()) {
      value = spec.type == OptionType::kNumber
                  ? fmt::to_string(static_cast<std::int64_t>(found->get<std::uint64_t>()))
                  : option_text(values, spec.name).value_or("");
      for (std::size_t at = value.find(','); at != std::string::npos; at = value.find(',', at + 2)) {
        value.insert(at, 1, ',');
      }
    }
    if (found != values.end() || !value.empty()) {
      shown += fmt::format(" {}={}", spec.name, value);
    }
  }
  return shown;
}

}  // namespace whistler::tools
