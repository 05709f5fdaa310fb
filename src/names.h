/* Every attribute and keyword name that the C code uses, interned once per module.
 *
 * CBASE_NAMES(X) calls X(name) for each; the state holds it as `s_<name>`.
 */
#ifndef CBASE_NAMES_H
#define CBASE_NAMES_H

#define CBASE_NAMES(X)                                                                            \
    X(__dict__)                                                                                   \
    X(__name__)                                                                                   \
    X(__self__)                                                                                   \
    X(_discard)                                                                                   \
    X(_do_read)                                                                                   \
    X(_empty_event)                                                                               \
    X(_formatinfo)                                                                                \
    X(_handle)                                                                                    \
    X(_run)                                                                                       \
    X(_semaphore)                                                                                 \
    X(_spawn)                                                                                     \
    X(_start_accepting_if_started)                                                                \
    X(_stop_event)                                                                                \
    X(_timer)                                                                                     \
    X(_watcher)                                                                                   \
    X(accept)                                                                                     \
    X(acquire)                                                                                    \
    X(add)                                                                                        \
    X(address)                                                                                    \
    X(args)                                                                                       \
    X(block)                                                                                      \
    X(blocking)                                                                                   \
    X(callback)                                                                                   \
    X(cancel_waits_close_and_then)                                                                \
    X(clear)                                                                                      \
    X(close)                                                                                      \
    X(closed)                                                                                     \
    X(closing_fd)                                                                                 \
    X(delay)                                                                                      \
    X(do_close)                                                                                   \
    X(do_handle)                                                                                  \
    X(do_handshake)                                                                               \
    X(do_read)                                                                                    \
    X(family)                                                                                     \
    X(fatal_errors)                                                                               \
    X(fd)                                                                                         \
    X(fileno)                                                                                     \
    X(free_count)                                                                                 \
    X(full)                                                                                       \
    X(get)                                                                                        \
    X(getsockname)                                                                                \
    X(greenlet_class)                                                                             \
    X(greenlets)                                                                                  \
    X(handle)                                                                                     \
    X(handle_error)                                                                               \
    X(hub)                                                                                        \
    X(init_socket)                                                                                \
    X(io)                                                                                         \
    X(is_fatal_error)                                                                             \
    X(is_set)                                                                                     \
    X(join)                                                                                       \
    X(kill)                                                                                       \
    X(loop)                                                                                       \
    X(max_accept)                                                                                 \
    X(max_delay)                                                                                  \
    X(min_delay)                                                                                  \
    X(pool)                                                                                       \
    X(pop)                                                                                        \
    X(rawlink)                                                                                    \
    X(release)                                                                                    \
    X(run_callback)                                                                               \
    X(set)                                                                                        \
    X(set_handle)                                                                                 \
    X(set_listener)                                                                               \
    X(set_spawn)                                                                                  \
    X(settings)                                                                                   \
    X(size)                                                                                       \
    X(socket)                                                                                     \
    X(spawn)                                                                                      \
    X(spawn_tree_locals)                                                                          \
    X(spawning_greenlet)                                                                          \
    X(start)                                                                                      \
    X(start_accepting)                                                                            \
    X(started)                                                                                    \
    X(stop)                                                                                       \
    X(stop_accepting)                                                                             \
    X(stop_timeout)                                                                               \
    X(switch)                                                                                     \
    X(switch_out)                                                                                 \
    X(throw)                                                                                      \
    X(timeout)                                                                                    \
    X(timer)                                                                                      \
    X(track_greenlet_tree)                                                                        \
    X(unlink)                                                                                     \
    X(value)                                                                                      \
    X(wait)                                                                                       \
    X(wrap_socket_and_handle)                                                                     \
    X(write)

#endif
