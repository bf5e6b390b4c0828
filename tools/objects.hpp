// The objects of one run (--object): secrets, which options of encrypted images name by their ids.
#pragma once

#include <map>
#include <string>

#include "base/result.hpp"

namespace whistler::tools {

/// The secrets defined so far, by id: what they are once read and decoded. As in QEMU they belong to the
/// whole run, whichever image uses them.
[[nodiscard]] const std::map<std::string, std::string>& secrets();

/// Takes the argument of --object: "secret,id=...,data=...|file=...[,format=raw|base64][,keyid=,iv=]", or the
/// same as JSON. Errors are QEMU's.
[[nodiscard]] Result<void> define_object(const std::string& text);

}  // namespace whistler::tools
