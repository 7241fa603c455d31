// SPDX-License-Identifier: Apache-2.0
// C simulation stand-in for TAPA: a thread per task, FIFOs of their declared depth that block.
#ifndef FLEXLLM_SHIM_TAPA_H
#define FLEXLLM_SHIM_TAPA_H

#include <pthread.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#ifndef FLEXLLM_TASK_STACK
#define FLEXLLM_TASK_STACK (16 << 20) // bytes for the local arrays of one task
#endif

namespace tapa {
namespace shim {

// Unwinds the tasks of a design in which none can go on.
struct deadlock {};

// A task that waits: for a FIFO, or for the tasks it started.
struct waiter {
  std::condition_variable wake;
  bool woken = false;
  std::string reason;
};

// Counts the tasks that can go on. When none is left and some wait for FIFOs, that is a deadlock.
class scheduler {
  std::size_t running_ = 1;
  std::vector<waiter *> waiting_;
  std::string message_;

  void leave() {
    if (--running_ > 0 || waiting_.empty()) return;
    if (message_.empty()) {
      std::vector<std::string> reasons;
      for (waiter *w : waiting_) reasons.push_back(w->reason);
      std::sort(reasons.begin(), reasons.end());
      message_ = "deadlock, every task waits: ";
      for (std::size_t i = 0; i < reasons.size(); i++) message_ += (i ? "; " : "") + reasons[i];
    }
    for (waiter *w : waiting_) resume(*w);
  }

public:
  std::mutex mutex;

  static scheduler &get() {
    static scheduler one;
    return one;
  }
  void reset() {
    running_ = 1;
    message_.clear();
  }
  const std::string &message() const { return message_; }
  void enter() { running_++; }
  void end() { leave(); }
  void fail(const std::string &message) {
    if (message_.empty()) message_ = message;
    for (waiter *w : waiting_) resume(*w);
  }
  void resume(waiter &w) {
    if (w.woken) return;
    w.woken = true;
    running_++;
    w.wake.notify_one();
  }
  void wait(std::unique_lock<std::mutex> &lock, waiter &w) {
    if (!message_.empty()) throw deadlock();
    waiting_.push_back(&w);
    leave();
    w.wake.wait(lock, [&w] { return w.woken; });
    waiting_.erase(std::find(waiting_.begin(), waiting_.end(), &w));
    if (!message_.empty()) throw deadlock();
  }
  // Tasks that wait for those they started are no part of a deadlock.
  void wait_for_tasks(std::unique_lock<std::mutex> &lock, waiter &w) {
    leave();
    w.wake.wait(lock, [&w] { return w.woken; });
  }
};

inline std::string &task_name() {
  static thread_local std::string name;
  return name;
}

// What both ends of a FIFO share.
template <typename T>
class fifo {
protected:
  std::deque<T> queue_;
  std::size_t depth_ = 2;
  std::string name_;
  waiter *reader_ = nullptr, *writer_ = nullptr;

  void block(std::unique_lock<std::mutex> &lock, waiter *&place, const char *what) {
    waiter w;
    w.reason = (task_name().empty() ? "a task" : task_name()) + what + (name_.empty() ? "a FIFO" : name_);
    place = &w;
    try {
      scheduler::get().wait(lock, w);
    } catch (...) {
      place = nullptr;
      throw;
    }
    place = nullptr;
  }

public:
  fifo() = default;
  fifo(const fifo &) = delete;
  fifo &operator=(const fifo &) = delete;
};

} // namespace shim

template <typename T>
class istream : virtual public shim::fifo<T> {
public:
  T read() {
    std::unique_lock<std::mutex> lock(shim::scheduler::get().mutex);
    while (this->queue_.empty()) this->block(lock, this->reader_, " reads the empty ");
    T value = this->queue_.front();
    this->queue_.pop_front();
    if (this->writer_) shim::scheduler::get().resume(*this->writer_);
    return value;
  }
  bool empty() const {
    std::unique_lock<std::mutex> lock(shim::scheduler::get().mutex);
    return this->queue_.empty();
  }
};

template <typename T>
class ostream : virtual public shim::fifo<T> {
public:
  void write(const T &value) {
    std::unique_lock<std::mutex> lock(shim::scheduler::get().mutex);
#ifndef FLEXLLM_TAPA_UNBOUNDED
    while (this->queue_.size() >= this->depth_) this->block(lock, this->writer_, " writes the full ");
#endif
    this->queue_.push_back(value);
    if (this->reader_) shim::scheduler::get().resume(*this->reader_);
  }
};

template <typename T, std::size_t Depth = 2>
class stream : public istream<T>, public ostream<T> {
public:
  explicit stream(const std::string &name = "") {
    this->depth_ = Depth;
    this->name_ = name;
  }
};

template <typename T, std::size_t N>
class istreams {
protected:
  std::array<istream<T> *, N> readers_{};

public:
  istream<T> &operator[](std::size_t i) { return *readers_.at(i); }
};

template <typename T, std::size_t N>
class ostreams {
protected:
  std::array<ostream<T> *, N> writers_{};

public:
  ostream<T> &operator[](std::size_t i) { return *writers_.at(i); }
};

template <typename T, std::size_t N, std::size_t Depth = 2>
class streams : public istreams<T, N>, public ostreams<T, N> {
  std::vector<std::unique_ptr<stream<T, Depth>>> all_;

public:
  streams(const streams &) = delete;
  streams &operator=(const streams &) = delete;
  explicit streams(const std::string &name = "") {
    for (std::size_t i = 0; i < N; i++) {
      all_.push_back(std::make_unique<stream<T, Depth>>(name + "[" + std::to_string(i) + "]"));
      this->readers_[i] = all_[i].get();
      this->writers_[i] = all_[i].get();
    }
  }
  stream<T, Depth> &operator[](std::size_t i) { return *all_.at(i); }
};

// Memory off the chip.
template <typename T>
class mmap {
  T *data_;
  std::uint64_t size_;

public:
  mmap(T *data, std::uint64_t size) : data_(data), size_(size) {}
  operator T *() const { return data_; }
  T *data() const { return data_; }
  std::uint64_t size() const { return size_; }
};
template <typename T>
struct read_only_mmap : mmap<T> {
  using mmap<T>::mmap;
};
template <typename T>
struct write_only_mmap : mmap<T> {
  using mmap<T>::mmap;
};
template <typename T>
struct read_write_mmap : mmap<T> {
  using mmap<T>::mmap;
};

namespace shim {

// FIFOs go to a task by reference, everything else by value.
template <typename T, typename = void>
struct is_channel : std::false_type {};
template <typename T>
struct is_channel<T, std::enable_if_t<!std::is_copy_constructible<T>::value>> : std::true_type {};
template <typename T, std::size_t N>
struct is_channel<istreams<T, N>> : std::true_type {};
template <typename T, std::size_t N>
struct is_channel<ostreams<T, N>> : std::true_type {};

template <typename A>
using kept = std::conditional_t<is_channel<std::decay_t<A>>::value, std::remove_reference_t<A> &, std::decay_t<A>>;

} // namespace shim

// Starts tasks; its end waits for theirs.
class task {
  struct job {
    std::function<void()> run;
    std::string name;
    task *parent;
  };
  std::vector<std::unique_ptr<job>> jobs_;
  std::vector<pthread_t> threads_;
  std::size_t left_ = 0;
  shim::waiter joined_;
  bool joining_ = false;

  static void *main(void *argument) {
    job &self = *static_cast<job *>(argument);
    shim::task_name() = self.name;
    std::string message;
    try {
      self.run();
    } catch (const shim::deadlock &) {
    } catch (const std::exception &error) {
      message = error.what();
    }
    shim::scheduler &all = shim::scheduler::get();
    std::unique_lock<std::mutex> lock(all.mutex);
    if (!message.empty()) all.fail(message);
    if (--self.parent->left_ == 0 && self.parent->joining_) all.resume(self.parent->joined_);
    all.end();
    return nullptr;
  }

  void start(std::unique_ptr<job> made) {
    {
      std::unique_lock<std::mutex> lock(shim::scheduler::get().mutex);
      shim::scheduler::get().enter();
      left_++;
    }
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, FLEXLLM_TASK_STACK);
    pthread_t thread;
    int failed = pthread_create(&thread, &attributes, main, made.get());
    pthread_attr_destroy(&attributes);
    if (failed) { // the task runs here, before those that follow
      main(made.get());
      return;
    }
    jobs_.push_back(std::move(made));
    threads_.push_back(thread);
  }

public:
  task() = default;
  task(const task &) = delete;
  task &operator=(const task &) = delete;
  ~task() {
    shim::scheduler &all = shim::scheduler::get();
    {
      std::unique_lock<std::mutex> lock(all.mutex);
      joining_ = true;
      if (left_ > 0) all.wait_for_tasks(lock, joined_);
    }
    for (pthread_t thread : threads_) pthread_join(thread, nullptr);
  }

  template <typename F, std::size_t N, typename... A>
  task &invoke(F &&f, const char (&name)[N], A &&...args) {
    std::tuple<shim::kept<A>...> held(std::forward<A>(args)...);
    auto run = [f, held]() mutable { std::apply(f, held); };
    start(std::unique_ptr<job>(new job{run, name, this}));
    return *this;
  }
  template <typename F, typename... A>
  task &invoke(F &&f, A &&...args) {
    return invoke(std::forward<F>(f), "", std::forward<A>(args)...);
  }
};

// Runs the top task; there is no device here. Returns nanoseconds.
template <typename F, typename... A>
std::int64_t invoke(F &&f, const std::string &bitstream, A &&...args) {
  if (!bitstream.empty()) throw std::runtime_error("this program was built for simulation, without TAPA");
  shim::scheduler::get().reset();
  auto begin = std::chrono::steady_clock::now();
  f(std::forward<A>(args)...);
  std::string message = shim::scheduler::get().message();
  if (!message.empty()) throw std::runtime_error(message);
  return std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin).count();
}

} // namespace tapa

#endif
