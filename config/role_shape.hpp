// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/reader.hpp"

#include <span>
#include <string>
#include <string_view>

/// What a role and the roles' configuration may look like, described once. The check, the JSON
/// schema and what is secret come from the one description. A member that it does not have is let
/// through: clients keep their own things there.
namespace berth::config {

struct member;

/// What one value may be. null is an absent member, and allowed wherever a member is optional.
struct shape {
  enum class kind : std::uint8_t {
    any,
    text,
    language,
    flag,
    number,
    whole,
    list,
    map,
    object,
    /// true, false or an object.
    flag_or_object
  };

  kind what = kind::any;
  /// Of objects: its name in the schema.
  const char* name = "";
  /// Of text: what it may be; empty: anything.
  std::span<const std::string_view> choices;
  /// Of numbers.
  double least = 0;
  double most = 0;
  /// Of lists and maps.
  const shape* element = nullptr;
  /// Of objects.
  std::span<const member> members;
  /// Of objects: members that this shape shares with others.
  std::span<const member> shared;
};

/// One member of an object.
struct member {
  const char* name;
  const shape* value;
  const char* meaning;
  bool required = false;
};

/// One role.
const shape& role_shape();
/// The whole configuration.
const shape& role_config_shape();

/// What is wrong with a value, with the path of the member at fault; empty: nothing.
std::string check_shape(const ordered& value, const shape& wanted, const std::string& path);

/// A JSON schema (draft 7) of the whole configuration.
ordered role_config_schema();

/// Whether a member of this name holds a secret wherever it stands, for example `llm_api_key`.
bool is_secret_name(std::string_view name);

} // namespace berth::config
