// SPDX-License-Identifier: Apache-2.0
#include "app/line_editor.hpp"

#include <clocale>
#include <csignal>
#include <cstdio>
#include <histedit.h>
#include <iostream>
#include <unistd.h>

namespace berth {

namespace {

constexpr int history_lines = 1000;

volatile std::sig_atomic_t was_interrupted = 0;

void on_interrupt(int) {
  was_interrupted = 1;
}

} // namespace

/// libedit, where both ends are a terminal.
struct line_editor::editor {
  EditLine* edit = nullptr;
  History* history = nullptr;
  std::string prompt;

  static char* give_prompt(EditLine* edit) {
    void* self = nullptr;
    el_get(edit, EL_CLIENTDATA, &self);
    return static_cast<editor*>(self)->prompt.data();
  }

  editor() {
    std::setlocale(LC_CTYPE, "");
    edit = el_init("berth", stdin, stdout, stderr);
    history = history_init();
    HistEvent event;
    ::history(history, &event, H_SETSIZE, history_lines);
    ::history(history, &event, H_SETUNIQUE, 1);
    el_set(edit, EL_CLIENTDATA, this);
    el_set(edit, EL_PROMPT, give_prompt);
    el_set(edit, EL_EDITOR, "emacs");
    el_set(edit, EL_HIST, ::history, history);
    el_set(edit, EL_BIND, "^R", "em-inc-search-prev", nullptr);
    el_source(edit, nullptr);
  }
  editor(const editor&) = delete;
  editor& operator=(const editor&) = delete;
  ~editor() {
    history_end(history);
    el_end(edit);
  }
};

line_editor::line_editor() {
  if (::isatty(0) == 1 && ::isatty(1) == 1)
    editor_ = std::make_unique<editor>();
}

line_editor::~line_editor() = default;

bool line_editor::interactive() const {
  return editor_ != nullptr;
}

line_editor::result line_editor::read(const std::string& prompt, std::string& line) {
  if (!editor_)
    return std::getline(std::cin, line) ? result::line : result::end;
  editor_->prompt = prompt;
  was_interrupted = 0;
  struct sigaction ours {};
  struct sigaction before {};
  ours.sa_handler = on_interrupt; // without SA_RESTART: the read must return
  ::sigaction(SIGINT, &ours, &before);
  int size = 0;
  const char* text = el_gets(editor_->edit, &size);
  ::sigaction(SIGINT, &before, nullptr);
  if (was_interrupted != 0) {
    el_reset(editor_->edit);
    std::printf("^C\n");
    return result::interrupted;
  }
  if (text == nullptr || size <= 0) {
    std::printf("\n");
    return result::end;
  }
  line.assign(text, static_cast<std::size_t>(size));
  if (line.ends_with('\n'))
    line.pop_back();
  return result::line;
}

void line_editor::remember(const std::string& text) {
  HistEvent event;
  if (editor_)
    ::history(editor_->history, &event, H_ENTER, text.c_str());
}

} // namespace berth
