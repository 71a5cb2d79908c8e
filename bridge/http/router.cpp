// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/router.hpp"

#include <algorithm>
#include <set>

namespace berth::http {

router::route& router::route_of(std::string_view pattern) {
  route made;
  while (!pattern.empty()) {
    pattern.remove_prefix(pattern.front() == '/' ? 1 : 0);
    auto end = std::min(pattern.find('/'), pattern.size());
    std::string_view text = pattern.substr(0, end);
    pattern.remove_prefix(end);
    if (text.size() > 2 && text.front() == '{' && text.back() == '}')
      made.segments.push_back({std::string{text.substr(1, text.size() - 2)}, false});
    else if (!text.empty())
      made.segments.push_back({std::string{text}, true});
  }
  auto same = [&](const route& other) {
    return std::equal(made.segments.begin(), made.segments.end(), other.segments.begin(),
                      other.segments.end(), [](const segment& x, const segment& y) {
                        return x.literal == y.literal && x.text == y.text;
                      });
  };
  if (auto known = std::find_if(routes_.begin(), routes_.end(), same); known != routes_.end())
    return *known;
  auto before = [](const route& x, const route& y) {
    return std::lexicographical_compare(
        x.segments.begin(), x.segments.end(), y.segments.begin(), y.segments.end(),
        [](const segment& a, const segment& b) { return a.literal && !b.literal; });
  };
  auto place = std::upper_bound(routes_.begin(), routes_.end(), made, before);
  return *routes_.insert(place, std::move(made));
}

void router::add(std::string_view method, std::string_view pattern, handler serve, access guard) {
  route_of(pattern).entries.push_back({std::string{method}, std::move(serve), nullptr, guard});
}

void router::websocket(std::string_view pattern, socket_factory upgrade) {
  route_of(pattern).entries.push_back({"GET", nullptr, std::move(upgrade), access::guarded});
}

bool router::fits(const route& candidate, const std::vector<std::string>& path) {
  if (candidate.segments.size() != path.size())
    return false;
  for (std::size_t i = 0; i < path.size(); ++i)
    if (candidate.segments[i].literal ? candidate.segments[i].text != path[i] : path[i].empty())
      return false;
  return true;
}

match router::find(std::string_view method, const std::vector<std::string>& path) const {
  match found;
  std::set<std::string> methods;
  for (const route& candidate : routes_) {
    if (!fits(candidate, path))
      continue;
    for (const entry& e : candidate.entries) {
      methods.insert(e.method);
      bool serves = e.method == method || (method == "HEAD" && e.method == "GET");
      if (!serves || found.serve != nullptr || found.upgrade != nullptr)
        continue;
      found.serve = e.serve ? &e.serve : nullptr;
      found.upgrade = e.upgrade ? &e.upgrade : nullptr;
      found.guard = e.guard;
      for (std::size_t i = 0; i < path.size(); ++i)
        if (!candidate.segments[i].literal)
          found.params[candidate.segments[i].text] = path[i];
    }
  }
  if (methods.empty())
    return found;
  if (methods.count("GET") != 0)
    methods.insert("HEAD");
  methods.insert("OPTIONS");
  for (const auto& name : methods)
    found.allow += (found.allow.empty() ? "" : ", ") + name;
  return found;
}

} // namespace berth::http
