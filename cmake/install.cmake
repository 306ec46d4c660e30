# What `cmake --install` puts where: the header, both libraries, what pkg-config and find_package need, the command
# `stead`, the man pages.  Everything finds everything by relative paths, so that --prefix may differ from the one that
# was configured.
if(NOT TARGET stead_static)
  return()
endif()
include(CMakePackageConfigHelpers)

install(FILES ${PROJECT_SOURCE_DIR}/include/stead.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS stead_static stead_shared EXPORT steadTargets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
if(TARGET stead_tool)
  install(TARGETS stead_tool RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/stead)
install(EXPORT steadTargets NAMESPACE stead:: DESTINATION ${package})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/steadConfig.cmake.in ${PROJECT_BINARY_DIR}/steadConfig.cmake
                              INSTALL_DESTINATION ${package})
# Before 1.0 a minor version may change what users see.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/steadConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/steadConfig.cmake ${PROJECT_BINARY_DIR}/steadConfigVersion.cmake
              ${CMAKE_CURRENT_LIST_DIR}/FindxxHash.cmake DESTINATION ${package})

file(RELATIVE_PATH STEAD_PC_TO_PREFIX /p/${CMAKE_INSTALL_LIBDIR}/pkgconfig /p)
string(REGEX REPLACE "/$" "" STEAD_PC_TO_PREFIX "${STEAD_PC_TO_PREFIX}")
configure_file(${CMAKE_CURRENT_LIST_DIR}/stead.pc.in ${PROJECT_BINARY_DIR}/stead.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/stead.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

foreach(page stead.1 stead.3)
  string(REGEX REPLACE ".*\\." "" section ${page})
  if(EXISTS ${PROJECT_SOURCE_DIR}/docs/man/${page})
    install(FILES ${PROJECT_SOURCE_DIR}/docs/man/${page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
  endif()
endforeach()
