// SPDX-License-Identifier: Apache-2.0
#include "messages/errors.hpp"
#include "messages/operations.hpp"

#include <algorithm>

namespace berth {

namespace {

template <class T>
void add_type(std::vector<type_info>& types);

/// Adds the described types that a member's type is made of.
template <class Member>
void add_nested(std::vector<type_info>& types) {
  if constexpr (is_maybe<Member> || is_vector<Member>)
    add_nested<typename Member::value_type>(types);
  else if constexpr (is_text_map<Member>)
    add_nested<typename Member::mapped_type>(types);
  else if constexpr (described<Member>)
    add_type<Member>(types);
}

template <class Owner, class Member>
void add_field(type_info& info, std::vector<type_info>& types,
               const field_t<Owner, Member>& member) {
  info.fields_of.push_back({.name = member.name,
                            .type = wire_type<Member>(),
                            .required = member.need == presence::required,
                            .meaning = member.meaning});
  add_nested<Member>(types);
}

template <class T>
void add_type(std::vector<type_info>& types) {
  auto same = [](const type_info& info) { return info.name == T::type_name; };
  if (std::ranges::any_of(types, same))
    return;
  type_info info{.name = T::type_name, .fields_of = {}};
  types.push_back(info);
  std::size_t place = types.size() - 1;
  std::apply([&](const auto&... members) { (..., add_field(info, types, members)); }, T::fields());
  types[place] = std::move(info);
}

template <class Operation>
void add_operation(description& all, const Operation& op) {
  using request = typename Operation::request;
  using reply = typename Operation::reply;
  all.operations.push_back({.op = op.op,
                            .meaning = op.meaning,
                            .request = request::type_name,
                            .reply = reply::type_name});
  add_type<request>(all.types);
  add_type<reply>(all.types);
}

} // namespace

description make_description() {
  description all{.protocol = "BERTH/1", .operations = {}, .types = {}, .errors = {}};
  std::apply([&](const auto&... ops) { (..., add_operation(all, ops)); }, operations);
  for (std::uint32_t code = 1; code < ec_names.size(); ++code)
    all.errors.push_back({.code = code, .name = std::string{ec_names[code]}});
  return all;
}

} // namespace berth
